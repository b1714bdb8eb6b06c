//! Every command of docs/tutorial.md, in its order and as it stands, on a few small images in the place of Fashion-MNIST.

use std::fs;

use anyhow::{Context, Result};
use tests::{Images, Program, World, checkout};

/// The commands in the page's blocks of code.
fn commands(page: &str) -> Vec<Vec<String>> {
    let blocks = page.split("```\n").skip(1).step_by(2);
    let lines = blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("iad-launch "));
    lines.map(|line| line.split(' ').map(str::to_string).collect()).collect()
}

#[test]
fn the_tutorial_works_as_it_stands() -> Result<()> {
    let world = World::new()?;
    let page = fs::read_to_string(checkout().join("docs/tutorial.md"))?;
    let commands = commands(&page);
    assert!(commands.len() >= 15, "{commands:?}");
    fs::create_dir(world.path("data"))?;
    world.images("data/fashion-mnist", Images { train: 128, test: 32, shape: [1, 28, 28], classes: 10 })?;
    for command in &commands {
        // The one command that needs a network; its file is there.
        if command.starts_with(&["data".to_string(), "fetch".to_string()]) {
            continue;
        }
        let words = command.iter().map(|word| if word == "512" { "32" } else { word });
        let ended = Program::alone().within(&world.path("")).args(words).run()?;
        let expected = if command[0] == "doctor" { ended.code.unwrap_or(1) } else { 0 };
        let said = ended.expect(expected).said;
        for (first, part) in [("init", "next:"), ("plan", "memory"), ("runs", "finished"), ("compare", "difference")] {
            assert!(command[0] != first || said.contains(part), "{command:?}: {said}");
        }
    }
    let page = fs::read_to_string(world.path("runs/tutorial.html")).context("the report of the tutorial")?;
    assert!(page.contains("mine, teacher robust") && page.contains("Figure 1."), "{page}");
    for file in
        ["mine.toml", "fashion-mnist_resnet8_at.toml", "runs/mine_seeds/seed-3/evaluation.json", "runs/mine.pth"]
    {
        assert!(world.path(file).is_file(), "{file}");
    }
    Ok(())
}
