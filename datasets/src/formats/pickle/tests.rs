//! Pickles of every protocol, and refused pickles.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 2] = ["collections.OrderedDict", "package.module.function"];

fn read(bytes: &[u8]) -> Pickle<'_> {
    Pickle::read(bytes, &NAMES).expect("a pickle")
}

fn refusal(bytes: &[u8]) -> String {
    format!("{:#}", Pickle::read(bytes, &NAMES).expect_err("no pickle for us"))
}

/// `{"a": [1, -2, 1.5, None, True, "text", b"\x00\xff"], "b": OrderedDict(x=(2**70,)), "c": the list of "a"}` as
/// `pickle.dumps` writes it by protocols 2 to 5.
const SAMPLES: [&[u8]; 4] = [
    b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffG?\xf8\x00\x00\x00\x00\x00\x00N\x88X\x04\x00\
      \x00\x00textq\x03c_codecs\nencode\nq\x04X\x03\x00\x00\x00\x00\xc3\xbfq\x05X\x06\x00\x00\x00latin1q\x06\x86q\x07Rq\
      \x08eX\x01\x00\x00\x00bq\x09ccollections\nOrderedDict\nq\x0a)Rq\x0bX\x01\x00\x00\x00xq\x0c\x8a\x09\x00\x00\x00\x00\
      \x00\x00\x00\x00@\x85q\x0dsX\x01\x00\x00\x00cq\x0eh\x02u.",
    b"\x80\x03}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffG?\xf8\x00\x00\x00\x00\x00\x00N\x88X\x04\x00\
      \x00\x00textq\x03C\x02\x00\xffq\x04eX\x01\x00\x00\x00bq\x05ccollections\nOrderedDict\nq\x06)Rq\x07X\x01\x00\x00\
      \x00xq\x08\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00@\x85q\x09sX\x01\x00\x00\x00cq\x0ah\x02u.",
    b"\x80\x04\x95h\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xffG?\xf8\x00\x00\x00\x00\x00\
      \x00N\x88\x8c\x04text\x94C\x02\x00\xff\x94e\x8c\x01b\x94\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\
      \x94\x8c\x01x\x94\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00@\x85\x94s\x8c\x01c\x94h\x02u.",
    b"\x80\x05\x95h\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xffG?\xf8\x00\x00\x00\x00\x00\
      \x00N\x88\x8c\x04text\x94C\x02\x00\xff\x94e\x8c\x01b\x94\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\
      \x94\x8c\x01x\x94\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00@\x85\x94s\x8c\x01c\x94h\x02u.",
];

#[test]
fn every_protocol_says_the_same() {
    for (sample, protocol) in SAMPLES.into_iter().zip(2..) {
        let names = ["_codecs.encode", "collections.OrderedDict"];
        let pickle = Pickle::read(sample, &names).unwrap_or_else(|error| panic!("protocol {protocol}: {error:#}"));
        let list = pickle.get(pickle.root, "a").expect("a");
        let elements = pickle.elements(list).expect("a list");
        let known = [
            Value::Integer(1),
            Value::Integer(-2),
            Value::Float(1.5),
            Value::None,
            Value::Bool(true),
            Value::Text("text"),
        ];
        assert_eq!(elements[..6], known, "protocol {protocol}");
        if protocol > 2 {
            assert_eq!(elements[6], Value::Bytes(&[0, 0xff]));
        }
        let made = pickle.made(pickle.get(pickle.root, "b").expect("b")).expect("an OrderedDict");
        assert_eq!((made.function, pickle.elements(made.arguments)), (names[1], Some(&[][..])));
        let long = pickle.elements(made.items[0].1).expect("a tuple")[0];
        assert_eq!((made.items[0].0, long), (Value::Text("x"), Value::Long(&[0, 0, 0, 0, 0, 0, 0, 0, 0x40])));
        assert_eq!(pickle.get(pickle.root, "c"), Some(list), "one list under two keys");
    }
}

#[test]
fn calls_are_written_down_with_their_state() {
    let pickle = read(b"\x80\x02cpackage.module\nfunction\nK\x01\x85R}U\x01sK\x02sb.");
    let made = pickle.made(pickle.root).expect("a call");
    assert_eq!(made.function, "package.module.function");
    assert_eq!(pickle.elements(made.arguments), Some(&[Value::Integer(1)][..]));
    assert_eq!(pickle.get(made.state.expect("a state"), "s"), Some(Value::Integer(2)));
    let pickle = read(b"\x80\x02U\x07storageK\x05\x86Q.");
    let identifier = pickle.outside(pickle.root).expect("a persistent id");
    assert_eq!(pickle.elements(identifier), Some(&[Value::Bytes(b"storage"), Value::Integer(5)][..]));
}

#[test]
fn integers_of_every_length_keep_their_value() {
    for (bytes, value) in [
        (&b"\x80\x02\x8a\x00."[..], 0),
        (b"\x80\x02\x8a\x01\xff.", -1),
        (b"\x80\x02\x8a\x02\xff\x00.", 255),
        (b"\x80\x02\x8b\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80.", i64::MIN),
    ] {
        assert_eq!(read(bytes).root, Value::Integer(value));
    }
}

#[test]
fn a_list_that_holds_itself_is_read() {
    let pickle = read(b"\x80\x02]q\x00h\x00a.");
    assert_eq!(pickle.elements(pickle.root), Some(&[pickle.root][..]));
    // A tuple that holds itself through a list: Python drops what it had begun and takes the one from the memo.
    for tuple in
        [&b"\x80\x02]q\x00h\x00\x85q\x01a0h\x01."[..], b"\x80\x02(]q\x00(h\x00K\x01K\x02K\x03tq\x01aK\x01K\x021h\x01."]
    {
        let pickle = read(tuple);
        let list = pickle.elements(pickle.root).expect("a tuple")[0];
        assert_eq!(pickle.elements(list), Some(&[pickle.root][..]));
    }
}

#[test]
fn several_pickles_in_a_row_are_read_one_by_one() {
    let (first, rest) = Pickle::read_first(b"\x80\x02K\x01.\x80\x02K\x02.", &[]).expect("two pickles");
    assert_eq!((first.root, Pickle::read(rest, &[]).expect("one").root), (Value::Integer(1), Value::Integer(2)));
}

#[test]
fn everything_else_is_refused_by_name() {
    for (pickle, message) in [
        (&b"\x80\x01K\x01."[..], "not a pickle of protocol 2 to 5"),
        (b"\x80\x06K\x01.", "not a pickle of protocol 2 to 5"),
        (b"(lp0\n.", "not a pickle of protocol 2 to 5"),
        (b"\x80\x02cos\nsystem\nU\x02ls\x85R.", "at byte 13: refused: os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "refused: os.system"),
        (b"\x80\x02cpackage\nmodule.function2\n.", "refused: package.module.function2"),
        (b"\x80\x02cpackage.module\n\n.", "refused: package.module."),
        (b"\x80\x02(ios\nsystem\n.", "refused: opcode 0x69"),
        (b"\x80\x02(cos\nsystem\no.", "refused: os.system"),
        (b"\x80\x02\x82\x01.", "refused: opcode 0x82"),
        (b"\x80\x05\x97.", "refused: opcode 0x97"),
        (b"\x80\x02h\x00.", "at byte 4: nothing stands in the memo at 0"),
        (b"\x80\x02U\x02ls\x85q\x01h\x01R.", "a call of something that is no function"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01R.", "without a tuple"),
        (b"\x80\x02}}b.", "a state of something that was not made"),
        (b"\x80\x02K\x01K\x02.", "more than one value"),
        (b"\x80\x02(K\x01.", "a value is missing|more than one value"),
        (b"\x80\x02.", "a value is missing"),
        (b"\x80\x02t.", "a mark is missing"),
        (b"\x80\x02K\x01(\x85.", "a value is missing"),
        (b"\x80\x02q\x00.", "a value is missing"),
        (b"\x80\x02K\x01(K\x02e.", "no container"),
        (b"\x80\x02)K\x01a.", "something else than a list"),
        (b"\x80\x02)K\x01K\x02s.", "something else than a dict"),
        (b"\x80\x02}(U\x01au.", "a key without a value"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "not UTF-8"),
        (b"\x80\x02K\x01.K", "bytes after the end"),
        (b"\x80\x02T\xff\xff\xff\xff.", "the file ends too early"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "the file ends too early"),
    ] {
        let found = refusal(pickle);
        assert!(message.split('|').any(|message| found.contains(message)), "{found} instead of {message}");
    }
}

#[test]
fn endless_work_is_refused() {
    let many = [&b"\x80\x02"[..], &b"N0".repeat(1 << 22), b"N."].concat();
    assert!(refusal(&many).contains("opcodes"));
}

#[test]
fn deep_nesting_is_no_harm() {
    let nested = [&b"\x80\x02N"[..], &[0x85; 1_000_000], b"."].concat();
    let pickle = read(&nested);
    assert_eq!(pickle.elements(pickle.root).map(<[Value]>::len), Some(1));
}

#[test]
fn every_truncation_is_an_error() {
    let names = ["_codecs.encode", "collections.OrderedDict"];
    for sample in SAMPLES {
        assert!((0..sample.len()).all(|length| Pickle::read(&sample[..length], &names).is_err()));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Pickle::read(&[&[0x80, 4], &bytes[..]].concat(), &NAMES);
    }

    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((2usize..110, any::<u8>()), 1..6), which in 0usize..4) {
        let mut pickle = SAMPLES[which].to_vec();
        for (at, byte) in changes {
            pickle[at] = byte;
        }
        let _ = Pickle::read(&pickle, &NAMES);
    }
}
