//! `iad-launch report`: the page in a real browser, if there is one, and the radii of `iad-launch eval --eps`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Images, Program, World, tell, tensors};

/// Shows the page at two widths and writes what a reader would see of it. With axe-core, also what it finds.
const MEASURE: &str = r#"<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe id="a" src="PAGE" width="375" height="900"></iframe><iframe id="b" src="PAGE" width="1440" height="900"></iframe>
<pre id="out"></pre><script>
addEventListener('load', async () => {
  const seen = {};
  for (const id of ['a', 'b']) {
    const frame = document.getElementById(id), page = frame.contentDocument;
    const all = (scope, what) => [...scope.querySelectorAll(what)].filter(one => one.checkVisibility());
    const within = box => box.left >= 0 && box.right <= frame.clientWidth + 0.5 && box.width > 200 && box.height > 100;
    const seenOnce = figure => { const drawn = all(figure, 'svg'); return drawn.length === 1 && within(drawn[0].getBoundingClientRect()); };
    const figures = [...page.querySelectorAll('figure')], texts = all(page, 'figure text');
    const outside = text => {
      const [box, around] = [text.getBoundingClientRect(), text.closest('svg').getBoundingClientRect()];
      return box.left < around.left - 1 || box.right > around.right + 1;
    };
    const boxes = all(page, '.wide').filter(box => box.scrollWidth > box.clientWidth);
    const found = { page: page.documentElement.scrollWidth, figures: figures.length, visible: figures.filter(seenOnce).length,
      smallest: Math.min(...texts.map(text => parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b))),
      outside: texts.filter(outside).map(text => text.textContent), pictures: all(page, 'table.images img').length,
      requests: frame.contentWindow.performance.getEntriesByType('resource').length,
      cut: boxes.length, pictures_cut: boxes.filter(box => box.querySelector('table.images')).length,
      unlabelled: page.querySelectorAll('svg:not([aria-label]), th:not([scope])').length };
    const source = document.getElementById('axe');
    if (source) {
      frame.contentWindow.eval(source.textContent);
      const { violations, passes } = await frame.contentWindow.axe.run(page);
      const grave = violations.filter(one => ['serious', 'critical'].includes(one.impact));
      found.passes = passes.map(one => one.id);
      found.grave = grave.map(one => [one.id, one.nodes.slice(0, 3).map(node => node.html.slice(0, 200))]);
    }
    seen[frame.getAttribute('width')] = found;
  }
  console.log('measured');
  document.getElementById('out').textContent = JSON.stringify(seen);
});
</script></body>"#;

/// The version of axe-core that `scripts/setup --tests` brings.
const AXE: &str = "axe-core-4.14.1/node_modules/axe-core/axe.min.js";

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

/// axe-core, as set-up leaves it.
fn axe() -> Option<String> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/iad"));
    let cache = std::env::var_os("IAD_CACHE").map(PathBuf::from).or_else(home)?;
    fs::read_to_string(cache.join(AXE)).ok()
}

/// What a browser sees of a page.
struct Seen {
    /// By its width.
    pages: Value,
    /// What was written to the browser's console.
    console: Vec<String>,
}

/// What the page looks like in `browser`, on a light or dark screen, and what `axe` finds.
fn seen(browser: &str, page: &Path, dark: bool, axe: Option<&str>) -> Result<Seen> {
    let harness = page.with_file_name("measure.html");
    let address = format!("file://{}", page.display());
    // A script ends at this word, wherever it stands.
    let axe = axe.map(|source| {
        format!("<script id=\"axe\" type=\"text/plain\">{}</script>", source.replace("</script", "<\\/script"))
    });
    let text = MEASURE.replace("PAGE", &address).replace("<pre id", &(axe.unwrap_or_default() + "<pre id"));
    fs::write(&harness, text)?;
    let profile = page.with_file_name("browser");
    let output = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"])
        .args(["--window-size=1900,1900", "--virtual-time-budget=60000", "--enable-logging=stderr"])
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", harness.display()))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.split("<pre id=\"out\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let found = found.context("the browser shows no page")?.replace("&lt;", "<").replace("&gt;", ">");
    let found = found.replace("&nbsp;", " ").replace("&amp;", "&");
    let log = String::from_utf8_lossy(&output.stderr);
    let console = log.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_string).collect();
    Ok(Seen { pages: serde_json::from_str(&found).with_context(|| format!("{text}\n{log}"))?, console })
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
    let Seen { pages: seen, console } = seen(browser, &run.join("report.html"), false, None)?;
    for (width, most) in [("375", 375), ("1440", 1440)] {
        let found = &seen[width];
        let number = |name: &str| found[name].as_u64().with_context(|| format!("{name} in {found}"));
        ensure!(number("figures")? >= 8 && number("visible")? == number("figures")?, "{width}: {found}");
        ensure!(number("page")? <= most, "the page is wider than {width}: {found}");
        ensure!(number("requests")? == 0 && number("unlabelled")? == 0, "{width}: {found}");
        ensure!(found["smallest"].as_f64().is_some_and(|size| size >= 9.0), "letters are too small: {found}");
        ensure!(found["outside"] == serde_json::json!([]), "letters are cut off: {found}");
        ensure!(number("pictures")? == 24 && number("pictures_cut")? == 0, "the images under attack: {found}");
    }
    ensure!(seen["1440"]["cut"] == 0, "a table is cut on a wide screen: {seen}");
    // The line of the measurement itself, which shows that lines are heard, and none of the page.
    ensure!(console.len() == 1 && console[0].contains("measured"), "{console:?}");
    Ok(())
}

#[test]
fn axe_finds_nothing_grave_in_the_page() -> Result<()> {
    let (Some(browser), Some(axe)) = (browser(), axe()) else {
        tell(
            "skipped: no Chromium (apt-get install chromium) or no axe-core (scripts/setup --tests, where there is npm)",
        );
        return Ok(());
    };
    let world = World::new()?;
    let run = distilled(&world)?;
    let page = run.join("report.html");
    for dark in [false, true] {
        let Seen { pages: seen, .. } = seen(browser, &page, dark, Some(&axe))?;
        for width in ["375", "1440"] {
            let found = &seen[width];
            let passes = found["passes"].as_array().context("axe did not run")?;
            ensure!(passes.iter().any(|rule| rule == "color-contrast"), "axe looked at no letters: {passes:?}");
            ensure!(found["grave"] == serde_json::json!([]), "{width}, dark {dark}: {}", found["grave"]);
        }
    }
    // A page with a fault is found out.
    let text = fs::read_to_string(&page)?;
    fs::write(&page, text.replacen("<h2>", "<img src=\"data:,\"><h2>", 1))?;
    let Seen { pages: seen, .. } = seen(browser, &page, false, Some(&axe))?;
    ensure!(seen["375"]["grave"][0][0] == "image-alt", "{}", seen["375"]["grave"]);
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
    // Eight images that the run kept itself, three pictures of each.
    assert_eq!(before.matches("src=\"data:image/png;base64,iVBOR").count(), 24);
    ensure!(before.contains("by pgd2</div>") && before.contains("teacher robust: pattern "), "{before}");
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
    assert_eq!(fs::read_to_string(run.join("report.html"))?, before, "damage is not shown");
    fs::remove_file(run.join("examples.safetensors"))?;
    Program::alone().args(["report", &folder]).run()?.expect(0);
    ensure!(!fs::read_to_string(run.join("report.html"))?.contains("Images under attack"), "there is nothing to show");
    Ok(())
}

/// The images that a run keeps do not depend on the number of ranks, nor on where the run was interrupted.
#[test]
fn the_images_that_a_run_keeps_are_the_same_on_any_number_of_ranks_and_after_a_resume() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let teacher = world.teacher(&data)?;
    let changes = World::distil(&teacher);
    let mut changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    changes.push(("precision.dtype", "\"float64\""));
    let config = world.config("student", &data, &changes)?;
    let kept = |name: &str| world.run(name).join("examples.safetensors");
    let train = |name: &str, ranks: usize| Program::on(ranks).train(&config, &world.run(name));
    train("whole", 1).run()?.expect(0);
    train("resumed", 1).stop_after(2).run()?.expect(85);
    ensure!(!kept("resumed").exists(), "images are kept at the end");
    train("resumed", 1).run()?.expect(0);
    assert_eq!(fs::read(kept("resumed"))?, fs::read(kept("whole"))?);
    let whole = tensors(&kept("whole"))?;
    let names: Vec<&str> = whole.keys().map(String::as_str).collect();
    let networks = ["predictions/robust", "predictions/student"];
    assert_eq!(names, [&["adversarial", "labels", "natural"], &networks[..], &["samples"]].concat());
    assert_eq!(whole["natural"].shape, [8, 3, 16, 16]);
    assert_eq!(whole["samples"].values()?, [0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0]);
    // The attack changes every image, by 8/255 at most.
    let values = whole["natural"].bytes.iter().zip(whole["adversarial"].values()?);
    let changed: Vec<f64> = values.map(|(before, now)| (now - f64::from(*before) / 255.0).abs()).collect();
    ensure!(changed.chunks(3 * 256).all(|image| image.iter().any(|change| *change > 0.02)), "images stay as they were");
    ensure!(changed.iter().all(|change| *change <= 8.0 / 255.0 + 1e-6), "an image left the ball");
    for ranks in [2, 3] {
        let name = format!("on-{ranks}");
        train(&name, ranks).run()?.expect(0);
        let other = tensors(&kept(&name))?;
        for name in names.iter().filter(|name| **name != "adversarial") {
            assert_eq!(other[*name], whole[*name], "{name} on {ranks} ranks");
        }
        // The weights of several ranks differ in their last bits.
        let (one, other) = (whole["adversarial"].values()?, other["adversarial"].values()?);
        let near = one.iter().zip(&other).filter(|(one, other)| (*one - *other).abs() < 1e-6).count();
        ensure!(near * 1000 >= one.len() * 999, "{near} of {} values are the same on {ranks} ranks", one.len());
    }
    Ok(())
}
