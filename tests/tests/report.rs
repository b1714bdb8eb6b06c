//! `iad-launch report`: the page in a real browser, if there is one, and the radii of `iad-launch eval --eps`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Images, Program, World, tell};

/// Shows the page at two widths and writes what a reader would see of it.
const MEASURE: &str = r#"<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe id="a" src="PAGE" width="375" height="900"></iframe><iframe id="b" src="PAGE" width="1440" height="900"></iframe>
<pre id="out"></pre><script>
addEventListener('load', () => {
  const seen = {};
  for (const id of ['a', 'b']) {
    const frame = document.getElementById(id), page = frame.contentDocument;
    const figures = [...page.querySelectorAll('figure svg')].map(svg => svg.getBoundingClientRect());
    const within = box => box.left >= 0 && box.right <= frame.clientWidth + 0.5 && box.width > 200 && box.height > 100;
    seen[frame.getAttribute('width')] = { page: page.documentElement.scrollWidth, figures: figures.length, visible: figures.filter(within).length,
      requests: frame.contentWindow.performance.getEntriesByType('resource').length,
      cut: [...page.querySelectorAll('.wide')].filter(box => box.checkVisibility() && box.scrollWidth > box.clientWidth).length,
      unlabelled: page.querySelectorAll('svg:not([aria-label]), th:not([scope])').length };
  }
  document.getElementById('out').textContent = JSON.stringify(seen);
});
</script></body>"#;

fn distilled(world: &World) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(40))?;
    let teacher = world.teacher(&data)?;
    let changes = World::distil(&teacher);
    let mut changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let suite = "[\"natural\", \"fgsm\", \"fgsm_rs\", \"pgd2\", \"cw_inf\"]";
    changes.extend([("epochs", "2"), ("metrics", "{ every = 1 }"), ("evaluation.suite", suite)]);
    let config = world.config("student", &data, &changes)?;
    let run = world.run("student");
    Program::alone().train(&config, &run).run()?.expect(0);
    Ok(run)
}

fn browser() -> Option<&'static str> {
    let works = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(works)
}

/// What the page looks like in `browser`, by its width.
fn seen(browser: &str, page: &Path) -> Result<Value> {
    let harness = page.with_file_name("measure.html");
    let address = format!("file://{}", page.display());
    fs::write(&harness, MEASURE.replace("PAGE", &address))?;
    let profile = page.with_file_name("browser");
    let output = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"])
        .args(["--window-size=1900,1900", "--virtual-time-budget=5000"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", harness.display()))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.split("<pre id=\"out\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    serde_json::from_str(found.context("the browser shows no page")?).with_context(|| text.clone())
}

#[test]
fn a_browser_shows_every_figure_on_narrow_and_wide_screens_and_asks_for_nothing() -> Result<()> {
    let Some(browser) = browser() else {
        tell("skipped: there is no Chromium; apt-get install chromium brings it");
        return Ok(());
    };
    let world = World::new()?;
    let run = distilled(&world)?;
    Program::alone().args(["report", &run.display().to_string()]).run()?.expect(0);
    let seen = seen(browser, &run.join("report.html"))?;
    for (width, most) in [("375", 375), ("1440", 1440)] {
        let found = &seen[width];
        let number = |name: &str| found[name].as_u64().with_context(|| format!("{name} in {found}"));
        ensure!(number("figures")? >= 8 && number("visible")? == number("figures")?, "{width}: {found}");
        ensure!(number("page")? <= most, "the page is wider than {width}: {found}");
        ensure!(number("requests")? == 0 && number("unlabelled")? == 0, "{width}: {found}");
    }
    ensure!(seen["1440"]["cut"] == 0, "a table is cut on a wide screen: {seen}");
    Ok(())
}

#[test]
fn several_radii_are_files_of_their_own_and_one_curve_of_the_report() -> Result<()> {
    let world = World::new()?;
    let run = distilled(&world)?;
    let folder = run.display().to_string();
    let eval =
        |eps: &'static str| Program::alone().args(["eval", &folder, "--suite", "natural,pgd2", "--eps", eps]).run();
    eval("0,2/255,4/255")?.expect(0);
    let mut rights = vec![];
    for eps in ["2_255", "4_255"] {
        let file = run.join(format!("evaluation-natural+pgd2-eps{eps}.json"));
        let found: Value = serde_json::from_slice(&fs::read(&file).with_context(|| file.display().to_string())?)?;
        rights.push(found["attacks"][1]["correct"].as_u64().context("correct")?);
    }
    ensure!(rights[0] >= rights[1], "more images withstand the larger radius: {rights:?}");
    Program::alone().args(["report", &folder]).run()?.expect(0);
    let page = fs::read_to_string(run.join("report.html"))?;
    ensure!(page.contains("Accuracy against the radius of the attack"));
    let _ = eval("0")?.expect(2).expect_error(&["--suite natural"]);
    Ok(())
}

/// Images that an evaluation saved into the run folder are on the page: as they were, as the attack left them, and the change.
#[test]
fn saved_adversarial_images_are_on_the_page() -> Result<()> {
    let world = World::new()?;
    let run = distilled(&world)?;
    let (folder, saved) = (run.display().to_string(), run.join("adversarial.h5").display().to_string());
    let before = fs::read_to_string(run.join("report.html"))?;
    ensure!(!before.contains("Images under attack"), "there was nothing to show");
    let out = world.path("images").display().to_string();
    let eval =
        ["eval", &folder, "--suite", "natural,pgd2", "--images", "16", "--out", &out, "--save-adversarial", &saved];
    Program::alone().args(eval).run()?.expect(0);
    Program::alone().args(["report", &folder]).run()?.expect(0);
    let page = fs::read_to_string(run.join("report.html"))?;
    // Twelve images, three pictures of each, and the classes by their names.
    assert_eq!(page.matches("src=\"data:image/png;base64,iVBOR").count(), 36);
    ensure!(page.contains("Images under attack") && page.contains("student: pattern "), "{page}");
    fs::write(&saved, "nothing of ours")?;
    Program::alone().args(["report", &folder]).run()?.expect(0);
    ensure!(!fs::read_to_string(run.join("report.html"))?.contains("Images under attack"), "damage is not shown");
    Ok(())
}
