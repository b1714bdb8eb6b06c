//! Files in the older format, written by hand: what real ones rarely have, and what hostile ones might.

use tch::Tensor;

use super::*;
use crate::weights::foreign::Opened;

/// A tensor of storage `0`, whose identifier ends with `rest` and which is described by `view`.
fn tensor(class: &str, rest: &[u8], view: &[u8]) -> Vec<u8> {
    let identifier = [b"(U\x07storagectorch\n", class.as_bytes(), b"\nU\x010U\x03cpu", rest, b"tQ"].concat();
    [b"ctorch._utils\n_rebuild_tensor_v2\n(", &identifier[..], view, b"\x89NtR"].concat()
}

/// Two elements of a float storage of `K\x04`, from its second on.
fn plain() -> Vec<u8> {
    tensor("FloatStorage", b"K\x04N", b"K\x01K\x02\x85K\x01\x85")
}

/// A file of `object` with one storage, `0`, of four float32: 0, 1, 2 and 3.
fn legacy(object: &[u8]) -> Vec<u8> {
    let head = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}U\x0dlittle_endian\x88s.";
    let storage: Vec<u8> = (0..4).flat_map(|number| (number as f32).to_le_bytes()).collect();
    [&head[..], b"\x80\x02", object, b".\x80\x02]U\x010a.", &4u64.to_le_bytes(), &storage].concat()
}

/// The names and values of a file's first dictionary.
fn values(object: &[u8]) -> Vec<(String, Vec<f32>)> {
    let bytes = legacy(object);
    let opened = Opened::read(&bytes).unwrap_or_else(|error| panic!("{error:#}"));
    let found = |(name, tensor): &(String, Described)| {
        (name.clone(), Vec::<f32>::try_from(&tensor.tensor().flatten(0, -1)).unwrap())
    };
    opened.dictionaries[0].tensors.iter().map(found).collect()
}

#[track_caller]
fn refuses(object: &[u8], part: &str) {
    let error = format!("{:#}", Opened::read(&legacy(object)).map(|_| ()).unwrap_err());
    assert!(error.contains(part), "{error:?} lacks {part:?}");
}

fn dict(tensor: &[u8]) -> Vec<u8> {
    [b"}U\x01w", tensor, b"s"].concat()
}

#[test]
fn an_ordered_dict_of_python_2_is_read() {
    let pair = |name: &[u8], tensor: &[u8]| [b"](U\x01", name, tensor, b"e"].concat();
    let other = tensor("FloatStorage", b"K\x04N", b"K\x03))");
    let object = [b"ccollections\nOrderedDict\n](", &pair(b"a", &plain())[..], &pair(b"b", &other), b"e\x85R"].concat();
    assert_eq!(values(&object), [("a".to_string(), vec![1.0, 2.0]), ("b".to_string(), vec![3.0])]);
}

#[test]
fn a_part_of_a_storage_is_found_in_it() {
    // Elements 1 and 2 of the storage, by a key of their own; the tensor begins with the second of them.
    let part = tensor("FloatStorage", b"K\x04(U\x01vK\x01K\x02t", b"K\x01K\x01\x85K\x01\x85");
    assert_eq!(values(&dict(&part)), [("w".to_string(), vec![2.0])]);
    let beyond = tensor("FloatStorage", b"K\x04(U\x01vK\x01K\x02t", b"K\x01K\x02\x85K\x01\x85");
    refuses(&dict(&beyond), "beyond its storage");
    let outside = tensor("FloatStorage", b"K\x04(U\x01vK\x03K\x02t", b"K\x00K\x01\x85K\x01\x85");
    refuses(&dict(&outside), "beyond its storage");
}

#[test]
fn axes_in_another_order_are_put_in_order() {
    let transposed = tensor("FloatStorage", b"K\x04N", b"K\x00K\x02K\x02\x86K\x01K\x02\x86");
    assert_eq!(values(&dict(&transposed)), [("w".to_string(), vec![0.0, 2.0, 1.0, 3.0])]);
}

#[test]
fn a_dictionary_that_holds_itself_is_walked_once() {
    let object = [b"}q\x00(U\x01w", &plain()[..], b"U\x04selfh\x00u"].concat();
    let bytes = legacy(&object);
    let opened = Opened::read(&bytes).unwrap();
    assert_eq!((opened.dictionaries.len(), opened.dictionaries[0].others.as_slice()), (1, &["self".to_string()][..]));
}

#[test]
fn what_stands_beside_the_weights_is_left_alone() {
    let scalar =
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(U\x02f8K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\
                   \xff\xff\xff\xffK\x00tbU\x08\0\0\0\0\0\0\xe0?tR";
    let object =
        [b"}(U\x08best_acc", &scalar[..], b"U\x0astate_dict", &dict(&plain()), b"U\x04sizectorch\nSize\n(K\x01t\x85Ru"]
            .concat();
    let bytes = legacy(&object);
    let opened = Opened::read(&bytes).unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(opened.dictionaries.iter().map(|one| one.path.as_str()).collect::<Vec<_>>(), ["state_dict"]);
}

#[test]
fn elements_that_share_one_place_take_no_memory() {
    // 2^40 float32 by a stride of 0; then 2^62 of them, more than can be counted in bytes.
    for (size, part) in [(1u64 << 40, "bytes in a file of"), (1 << 62, "larger than any memory")] {
        let size = [&b"\x8a\x08"[..], &size.to_le_bytes()].concat();
        let tensor = tensor("FloatStorage", b"K\x04N", &[b"K\x00", &size[..], b"\x85K\x00\x85"].concat());
        refuses(&dict(&tensor), part);
    }
    // Many names of one tensor whose 64 elements are the first of the storage: each alone would pass.
    let whole = tensor("FloatStorage", b"K\x04N", b"K\x00K\x40\x85K\x00\x85");
    assert_eq!(values(&dict(&whole))[0].1, [0.0; 64]);
    let names =
        (0..255u8).map(|number| [b"U\x02n", &[number][..], b"h\x00"].concat()).filter(|name| name[3].is_ascii());
    let many = [&b"}(U\x01w"[..], &whole, b"q\x00", &names.collect::<Vec<_>>().concat(), b"u"].concat();
    refuses(&many, "bytes in a file of");
}

#[test]
fn storages_that_are_not_what_they_say_are_refused() {
    let view = b"K\x00K\x01\x85K\x01\x85";
    let of = |class: &str, rest: &[u8]| dict(&tensor(class, rest, view));
    refuses(&of("FloatStorage", b"K\x05N"), "another length");
    refuses(&of("FloatStorage", b"\x8a\x08\0\0\0\0\0\0\0\x10N"), "another length");
    refuses(&of("FloatStorage", b"J\xff\xff\xff\xffN"), "negative size");
    refuses(&of("DoubleStorage", b"K\x04N"), "cut short");
    refuses(&of("HalfStorage", b"K\x04N"), "after the end");
    refuses(&of("ComplexFloatStorage", b"K\x04N"), "refused: torch.ComplexFloatStorage");
    refuses(&of("Size", b"K\x04N"), "a storage of type torch.Size");
    refuses(&of("FloatStorage", b"K\x04NN"), "no storage");
    let twice = [b"}(U\x01v", &plain()[..], b"U\x01w", &tensor("LongStorage", b"K\x04N", view), b"u"].concat();
    refuses(&twice, "described in two ways");
    refuses(b"}U\x01wU\x06moduleQs", "a persistent id");
    let beside = |object: &[u8]| [b"}(U\x01v", &plain()[..], b"U\x01w", object, b"u"].concat();
    refuses(&beside(b"ctorch._utils\n_rebuild_tensor_v2\n)R"), "unknown way");
    refuses(&beside(b"ctorch._utils\n_rebuild_parameter\n)R"), "a parameter without a tensor");
    refuses(&[b"}(U\x01w", &plain()[..], b"U\x01w", &plain(), b"u"].concat(), "two tensors are called w");
    // The storage of this file belongs to no tensor in it.
    refuses(b"K\x01", "storage 0 is of unknown type");
}

#[test]
fn tensors_outside_of_their_storage_are_refused() {
    for view in [
        &b"K\x03K\x02\x85K\x01\x85"[..],
        b"J\xff\xff\xff\xffK\x02\x85K\x01\x85",
        b"K\x00J\xff\xff\xff\xff\x85K\x01\x85",
        b"K\x03K\x02\x85J\xff\xff\xff\xff\x85",
        b"K\x00K\x02\x85)",
        b"K\x00K\x02K\x01",
        b"K\x00\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85",
    ] {
        assert!(Opened::read(&legacy(&dict(&tensor("FloatStorage", b"K\x04N", view)))).is_err(), "{view:?}");
    }
    assert!(Tensor::from_slice(&[1f32, 2.0]).equal(&Tensor::from_slice(&values(&dict(&plain()))[0].1)));
}
