//! `iad-launch init`: what it writes is planned and trained as it stands, by the commands that it prints.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use tests::{Ended, Images, Program, World, checkout};

const METHODS: [&str; 35] = [
    "st",
    "at",
    "trades",
    "trades-ls",
    "mart",
    "nuat",
    "ard",
    "ard-orig",
    "akd2",
    "akd2-orig",
    "akd2-partial",
    "iad-1",
    "iad-1-down",
    "iad-2",
    "rslad",
    "adaad",
    "igdm",
    "igdm-ard",
    "igdm-rslad",
    "ltd",
    "hat",
    "dgad",
    "dkl",
    "gkl",
    "saad",
    "saad-c",
    "adr",
    "adr-trades",
    "fair-ard",
    "fair-iad",
    "fair-rslad",
    "mtard",
    "b-mtard",
    "lbgat",
    "peeraid",
];

fn within(world: &World, words: &[&str]) -> Result<Ended> {
    Program::alone().within(&world.path("")).args(words).run()
}

/// The arguments of the commands that are printed as next ones.
fn next(said: &str) -> Vec<Vec<String>> {
    let lines = said.split("next:\n").nth(1).unwrap_or_default().lines();
    let commands = lines.filter_map(|line| line.trim().strip_prefix("iad-launch "));
    commands.map(|command| command.split(' ').map(str::to_string).collect()).collect()
}

/// Every method on images of one's own: the printed commands plan it and train it, its teachers first.
#[test]
fn every_method_is_planned_and_trained_as_it_is_written() -> Result<()> {
    let world = World::new()?;
    world.images("own", Images { train: 64, test: 16, shape: [3, 16, 16], classes: 4 })?;
    assert_eq!(fs::read_dir(checkout().join("configs/losses"))?.count(), METHODS.len(), "a preset is missing here");
    for method in METHODS {
        let said = within(&world, &["init", "own.h5", "--method", method, "--model", "resnet8"])?.expect(0).said;
        let commands = next(&said);
        let [plan, train] = &commands[..] else { panic!("{said}") };
        assert_eq!((plan[0].as_str(), &plan[1]), ("plan", &train[0]), "{said}");
        if method == "iad-2" {
            // A projection takes no measurement.
            let plan = Program::alone().within(&world.path("")).args(plan).args(["--gpu", "h100"]).run()?.expect(0);
            assert!(plan.said.contains("resnet8"), "{}", plan.said);
        }
        let train = Program::alone().within(&world.path("")).args(train).stop_after(1).run()?.expect(85);
        assert!(train.said.contains("stopped; the same command goes on from here"), "{}", train.said);
        assert!(
            world.path(&format!("runs/own_resnet8_{method}/run.toml")).is_file() || method == "at",
            "{}",
            train.said
        );
    }
    // The teachers were trained once.
    let teachers =
        ["at", "st"].map(|teacher| world.path(&format!("runs/own_resnet8_{teacher}/checkpoints/final.safetensors")));
    assert!(teachers.iter().all(|weights| weights.is_file()), "{teachers:?}");
    Ok(())
}

/// The networks of papers, in the spelling of papers, on published data sets that need not be there.
#[test]
fn every_network_and_data_set_is_planned_as_it_is_written() -> Result<()> {
    let world = World::new()?;
    for (dataset, method, model, teacher) in [
        ("CIFAR-10", "IAD-I", "WRN-34-10", "cifar10_wrn-34-10_at"),
        ("CIFAR-100", "IAD-II", "ResNet-18", "cifar100_resnet18_st"),
        ("TinyImageNet", "ARD", "PreActResNet-18", "tiny-imagenet_preact-resnet18_at"),
        ("FashionMNIST", "TRADES", "MobileNetV2", ""),
        ("mnist", "at", "convnet", ""),
        ("cifar10", "rslad", "torchvision-resnet50", "cifar10_torchvision-resnet50_at"),
        ("cifar10", "igdm", "dm-wrn-28-10", "cifar10_dm-wrn-28-10_at"),
        ("cifar10", "adaad", "dm-preact-resnet18", "cifar10_dm-preact-resnet18_at"),
    ] {
        let said = within(&world, &["init", dataset, "--method", method, "--model", model])?.expect(0).said;
        if !teacher.is_empty() {
            assert!(world.path(&format!("{teacher}.toml")).is_file(), "{said}");
        }
        let commands = next(&said);
        assert_eq!(commands[0][0], "data", "{said}");
        let sizes: &[&str] =
            if dataset == "mnist" { &["--image", "1x28x28", "--classes", "10", "--images", "60000"] } else { &[] };
        let plan = Program::alone().within(&world.path("")).args(&commands[1]).args(["--gpu", "a100"]).args(sizes);
        let said = plan.run()?.expect(0).said;
        assert!(teacher.is_empty() || said.contains("would be trained first"), "{said}");
    }
    Ok(())
}

#[test]
fn nothing_is_overwritten_and_names_are_mended() -> Result<()> {
    let world = World::new()?;
    let init = |words: &[&str]| within(&world, &[&["init"], words].concat());
    let to = ["cifar10", "--method", "iad-1", "--model", "resnet18", "--to", "configs of mine/my.toml"];
    let said = init(&to)?.expect(0).said;
    assert!(said.contains("iad-launch 'configs of mine/my.toml'"), "{said}");
    let (file, teacher) =
        (world.path("configs of mine/my.toml"), world.path("configs of mine/cifar10_resnet18_at.toml"));
    let text = fs::read_to_string(&file)?;
    init(&to)?.expect(2).expect_error(&["my.toml", "does not exist yet"]);
    assert_eq!(fs::read_to_string(&file)?, text);

    // A teacher's file that is there stays, and is used.
    fs::write(&teacher, fs::read_to_string(&teacher)?.replace("epochs = 200", "epochs = 7"))?;
    let second = [&to[..5], &["--to", "configs of mine/second.toml"]].concat();
    let said = init(&second)?.expect(0).said;
    assert!(said.contains("cifar10_resnet18_at.toml was there already"), "{said}");
    assert!(fs::read_to_string(&teacher)?.contains("epochs = 7"));
    let name = teacher.display().to_string();
    let own = [&to[..5], &["--to", &name]].concat();
    init(&own)?.expect(2).expect_error(&["does not exist yet"]);

    let mistakes: [(&[&str], &str); 5] = [
        (&["cifra10"], "did you mean cifar10?"),
        (&["cifar10", "--method", "iad3"], "did you mean iad-1?"),
        (&["cifar10", "--model", "resent18"], "did you mean resnet18?"),
        (&["cifar10", "--teacher-model", "wrn-34-1o"], "did you mean wrn-34-10?"),
        (&["cifar10", "--to", "mine.yaml"], "a file that ends in .toml"),
    ];
    for (words, meant) in mistakes {
        init(words)?.expect(2).expect_error(&[meant]);
    }
    let left: Vec<_> = fs::read_dir(world.path(""))?.collect::<std::io::Result<_>>()?;
    let written = left.iter().filter(|entry| Path::new(&entry.file_name()).extension().is_some()).count();
    assert_eq!(written, 0, "a mistake left a file");
    let text = text.lines().find(|line| line.starts_with("architecture")).context("architecture")?;
    assert_eq!(text, "architecture = \"resnet18\"");
    Ok(())
}
