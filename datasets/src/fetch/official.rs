//! The published archives: their addresses, sizes and checksums.

/// A published file.
#[derive(Debug, Clone, Copy)]
pub struct OfficialFile {
    /// The data set it belongs to.
    pub dataset: &'static str,
    /// The address at which its authors, or their institute, serve it.
    pub url: &'static str,
    /// Its length.
    pub bytes: u64,
    /// Its MD5, in hex: the sum that its authors publish, or that torchvision and others check.
    pub md5: &'static str,
}

/// Every file that [`fetch`](crate::fetch) can get. MD5 detects damage and mix-ups, but not forgery.
pub const OFFICIAL: [OfficialFile; 7] = [
    OfficialFile {
        dataset: "cifar10",
        url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        bytes: 170_052_171,
        md5: "c32a1d4ab5d03f1284b67883e8d87530",
    },
    OfficialFile {
        dataset: "cifar100",
        url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        bytes: 168_513_733,
        md5: "03b5dce01913d631647c71ecec9e9cb8",
    },
    OfficialFile {
        dataset: "tiny-imagenet",
        url: "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        bytes: 248_100_043,
        md5: "90528d7ca1a48142e341f4ef8d21d0de",
    },
    OfficialFile {
        dataset: "fashion-mnist",
        url: "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/train-images-idx3-ubyte.gz",
        bytes: 26_421_880,
        md5: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    },
    OfficialFile {
        dataset: "fashion-mnist",
        url: "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/train-labels-idx1-ubyte.gz",
        bytes: 29_515,
        md5: "25c81989df183df01b3e8a0aad5dffbe",
    },
    OfficialFile {
        dataset: "fashion-mnist",
        url: "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/t10k-images-idx3-ubyte.gz",
        bytes: 4_422_102,
        md5: "bef4ecab320f06d8554ea6380940ec79",
    },
    OfficialFile {
        dataset: "fashion-mnist",
        url: "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/t10k-labels-idx1-ubyte.gz",
        bytes: 5_148,
        md5: "bb300cfdad3c16e7a12a480ee83cd310",
    },
];

impl OfficialFile {
    /// The last part of its address.
    pub fn name(&self) -> &'static str {
        self.url.rsplit('/').next().unwrap_or(self.url)
    }
}
