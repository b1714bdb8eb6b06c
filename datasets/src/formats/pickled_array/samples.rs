//! Pickles like the published ones, opcode by opcode.

/// The pickle of a batch of CIFAR-10.
pub(crate) fn batch(labels: &[u8], pixels: &[u8]) -> Vec<u8> {
    whole(&[("labels", labels)], pixels)
}

/// The pickle of a batch of CIFAR-100.
pub(crate) fn batch_of_hundred(fine: &[u8], coarse: &[u8], pixels: &[u8]) -> Vec<u8> {
    whole(&[("fine_labels", fine), ("coarse_labels", coarse)], pixels)
}

/// The pickle of lists of names.
pub(crate) fn meta(lists: &[(&str, &[String])]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}q\x01(".to_vec();
    for (key, names) in lists {
        string(&mut pickle, key);
        pickle.extend(b"]q\x04(");
        names.iter().for_each(|name| string(&mut pickle, name));
        pickle.push(b'e');
    }
    pickle.extend(b"u.");
    pickle
}

fn string(pickle: &mut Vec<u8>, text: &str) {
    pickle.extend([b'U', text.len() as u8]);
    pickle.extend(text.as_bytes());
    pickle.extend(b"q\x02");
}

fn whole(lists: &[(&str, &[u8])], pixels: &[u8]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03".to_vec();
    for (key, labels) in lists {
        string(&mut pickle, key);
        pickle.extend(b"]q\x05");
        for part in labels.chunks(1000) {
            pickle.push(b'(');
            part.iter().for_each(|&label| pickle.extend([b'K', label]));
            pickle.push(b'e');
        }
    }
    pickle.extend(
        b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09",
    );
    pickle.extend(b"(K\x01M");
    pickle.extend((lists[0].1.len() as u16).to_le_bytes());
    pickle.extend(b"M\x00\x0c\x86cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b");
    pickle.extend(b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T");
    pickle.extend((pixels.len() as u32).to_le_bytes());
    pickle.extend(pixels);
    pickle.extend(b"tbU\x09filenamesq\x0c]q\x0d(U\x05a.pngq\x0ee");
    pickle.extend(b"u.");
    pickle
}
