"""Reads an image container with h5py and nothing of this project: python read_container.py FILE.h5"""

import hashlib
import sys

import h5py

with h5py.File(sys.argv[1], "r", locking=False) as file:
    if file.attrs["schema"] != b"iad-images" or file.attrs["version"] != 1:
        sys.exit("not an image container of version 1")
    names = [name.decode() for name in file.attrs["class_names"]]
    print(f"{file.attrs['name'].decode()}: {len(names)} classes; {file.attrs['source'].decode()}")
    for split in ("train", "test"):
        if split not in file:
            continue
        group = file[split]
        images, labels = group["images"], group["labels"][:]
        digest = hashlib.sha256()
        for first in range(0, len(images), 1024):  # a slice at a time: the whole may be larger than memory
            digest.update(images[first : first + 1024].tobytes())
        right = digest.hexdigest().encode() == group.attrs["images_sha256"]
        right &= hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest().encode() == group.attrs["labels_sha256"]
        print(f"{split}: {images.shape}, chunks {images.chunks}, compression {images.compression}; first: {names[labels[0]]}")
        print(f"  mean {group.attrs['mean']}, std {group.attrs['std']}; checksums {'right' if right else 'WRONG'}")
        if not right:
            sys.exit(1)
