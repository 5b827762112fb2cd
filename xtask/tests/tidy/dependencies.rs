//! Allowed dependencies: between our crates, and on others.

use std::collections::{BTreeMap, BTreeSet};

use super::crates::{Crate, crates, manifest};
use super::report::Report;
use super::tree::read;

/// For each crate, those of our crates that it may use. The arrows point strictly downward.
///
/// A new arrow is a design decision: draw it in `crates/ARCHITECTURE.md` too.
const ARROWS: [(&str, &[&str]); 12] = [
    ("andiron-kernels", &[]),
    ("andiron-files", &[]),
    ("andiron-page", &[]),
    ("andiron-data", &["andiron-files", "andiron-kernels"]),
    ("andiron-corpus", &["andiron-data", "andiron-files", "andiron-kernels", "andiron-page"]),
    ("andiron-core", &["andiron-kernels"]),
    ("andiron-models", &["andiron-core", "andiron-files", "andiron-kernels"]),
    ("andiron-pipelines", &["andiron-core", "andiron-data", "andiron-kernels", "andiron-models"]),
    (
        "andiron-eval",
        &["andiron-core", "andiron-data", "andiron-kernels", "andiron-models", "andiron-pipelines"],
    ),
    (
        "andiron-training",
        &[
            "andiron-core",
            "andiron-data",
            "andiron-eval",
            "andiron-files",
            "andiron-kernels",
            "andiron-models",
            "andiron-page",
            "andiron-pipelines",
        ],
    ),
    (
        "andiron-serving",
        &["andiron-core", "andiron-data", "andiron-kernels", "andiron-models", "andiron-pipelines"],
    ),
    (
        "andiron-cli",
        &[
            "andiron-core",
            "andiron-corpus",
            "andiron-data",
            "andiron-eval",
            "andiron-files",
            "andiron-kernels",
            "andiron-models",
            "andiron-pipelines",
            "andiron-serving",
            "andiron-training",
        ],
    ),
];

/// External crates that a crate must not use, and why.
const FOREIGN: [(&str, &[&str], &str); 6] = [
    ("andiron-core", &["tokenizers", "safetensors", "memmap2"], "core knows no text and no files"),
    ("andiron-models", &["tokenizers"], "models see token ids, never a tokenizer"),
    ("andiron-pipelines", &["axum", "hyper", "tokio"], "pipelines do not know HTTP"),
    ("andiron-eval", &["axum", "hyper", "tokio"], "evaluation does not know HTTP"),
    ("andiron-training", &["axum", "hyper", "tokio"], "training does not know HTTP"),
    ("andiron-serving", &["indicatif"], "serving does not draw on a terminal"),
];

const TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Dependencies of one table of a manifest: name and specification.
fn table<'a>(manifest: &'a toml::Table, name: &str) -> impl Iterator<Item = (&'a str, &'a toml::Value)> {
    let table = manifest.get(name).and_then(toml::Value::as_table);
    table.into_iter().flatten().map(|(name, specification)| (name.as_str(), specification))
}

fn depends_on(krate: &Crate, tables: &[&str], name: &str) -> bool {
    tables.iter().any(|kind| table(&krate.manifest, kind).any(|(dependency, _)| dependency == name))
}

#[test]
fn arrows_between_crates_point_downward() {
    let mut report = Report::new(
        "a crate uses only crates below it",
        "move the code to the crate that may have it, or change the design: ARROWS here and crates/ARCHITECTURE.md",
    );
    let allowed: BTreeMap<_, _> = ARROWS.into_iter().collect();
    for krate in crates() {
        let place = krate.path("Cargo.toml");
        let Some(allowed) = allowed.get(krate.name.as_str()) else {
            report.add(place, format!("{} has no row in ARROWS", krate.name));
            continue;
        };
        for (dependency, _) in TABLES.iter().flat_map(|kind| table(&krate.manifest, kind)) {
            // A crate may name itself in its own tests, to turn a feature on.
            if dependency.starts_with("andiron-")
                && dependency != krate.name
                && !allowed.contains(&dependency)
            {
                report.add(&place, format!("{} must not use {dependency}", krate.name));
            }
        }
    }
    let xtask = manifest("xtask");
    for (dependency, _) in TABLES.iter().flat_map(|kind| table(&xtask, kind)) {
        if dependency.starts_with("andiron") || dependency.starts_with("burn") {
            report.add("xtask/Cargo.toml", format!("the driver must not link {dependency}"));
        }
    }
    report.hold();
}

#[test]
fn crates_below_burn_never_reach_it() {
    let mut report = Report::new(
        "andiron-kernels, andiron-files, andiron-data and andiron-corpus have no Burn in their dependency tree, so that they build and test in seconds",
        "drop the dependency that brings Burn along",
    );
    let lock = Lock::read();
    for name in ["andiron-kernels", "andiron-files", "andiron-data", "andiron-corpus"] {
        for package in lock.reachable(name) {
            if ["burn", "cubecl", "cubek"].iter().any(|family| package.starts_with(family)) {
                report.add(format!("crates/{name}/Cargo.toml"), format!("reaches {package}"));
            }
        }
    }
    report.hold();
}

#[test]
fn libraries_leave_the_command_line_alone() {
    let mut report = Report::new(
        "no library depends on anyhow or clap: errors are typed, flags belong to andiron-cli",
        "define an error with thiserror; take the value as an argument",
    );
    for krate in crates().iter().filter(|krate| krate.is_library()) {
        for name in ["anyhow", "clap", "ctrlc", "indicatif", "tracing-subscriber"] {
            if depends_on(krate, &["dependencies", "build-dependencies"], name) {
                report.add(krate.path("Cargo.toml"), format!("depends on {name}"));
            }
        }
    }
    report.hold();
}

#[test]
fn each_layer_stays_ignorant_of_what_is_not_its_business() {
    let mut report =
        Report::new("a layer knows only its own business", "move the code to the layer that may know");
    for (name, foreign, why) in FOREIGN {
        for krate in crates().iter().filter(|krate| krate.name == name) {
            for dependency in foreign {
                if depends_on(krate, &["dependencies"], dependency) {
                    report.add(krate.path("Cargo.toml"), format!("depends on {dependency}, but {why}"));
                }
            }
        }
    }
    report.hold();
}

#[test]
fn libraries_name_no_backend() {
    const BACKENDS: [&str; 6] = ["ndarray", "flex", "wgpu", "vulkan", "metal", "cuda"];
    let mut report = Report::new(
        "only andiron-core knows backends; the other libraries are the same for all of them",
        "take a `&Device`; choose a backend in andiron-cli, examples and benches, or in `[dev-dependencies]` for tests",
    );
    for krate in crates().iter().filter(|krate| krate.is_library() && krate.name != "andiron-core") {
        let place = krate.path("Cargo.toml");
        for (name, _) in table(&krate.manifest, "features") {
            if BACKENDS.contains(&name) {
                report.add(&place, format!("has a feature `{name}`"));
            }
        }
        for (dependency, specification) in table(&krate.manifest, "dependencies") {
            let features = specification.get("features").and_then(toml::Value::as_array);
            for feature in features.into_iter().flatten().filter_map(toml::Value::as_str) {
                if BACKENDS.contains(&feature) {
                    report.add(&place, format!("turns on `{feature}` of {dependency}"));
                }
            }
            if dependency.starts_with("burn-") {
                report.add(&place, format!("names the backend crate {dependency}"));
            }
        }
    }
    report.hold();
}

#[test]
fn burn_is_pinned_and_slim() {
    const PIN: &str = "=0.22.1";
    let mut report = Report::new(
        "every Burn crate is pinned `=0.22.1`, without default features, once, in the workspace's manifest",
        "pin it there and write `.workspace = true` in the crate",
    );
    let root: toml::Table = read("Cargo.toml").parse().expect("the workspace's manifest is TOML");
    let workspace = root["workspace"].as_table().expect("it has a workspace");
    for (name, specification) in table(workspace, "dependencies").filter(|(name, _)| name.starts_with("burn"))
    {
        if specification.get("version").and_then(toml::Value::as_str) != Some(PIN) {
            report.add("Cargo.toml", format!("{name} is not pinned to {PIN}"));
        }
        if specification.get("default-features").and_then(toml::Value::as_bool) != Some(false) {
            report.add("Cargo.toml", format!("{name} has its default features"));
        }
    }
    for krate in crates() {
        for (name, specification) in TABLES.iter().flat_map(|kind| table(&krate.manifest, kind)) {
            let inherited = specification.get("workspace").and_then(toml::Value::as_bool) == Some(true);
            if name.starts_with("burn") && !inherited {
                report.add(krate.path("Cargo.toml"), format!("{name} has a version of its own"));
            }
        }
    }
    for (name, version) in Lock::read().versions() {
        if (name == "burn" || name.starts_with("burn-")) && format!("={version}") != PIN {
            report.add("Cargo.lock", format!("{name} is {version}"));
        }
    }
    report.hold();
}

#[test]
fn everything_comes_from_the_registry() {
    let mut report = Report::new("every dependency comes from crates.io", "use a published version");
    for package in Lock::read().packages {
        if let Some(source) = package.get("source").and_then(toml::Value::as_str)
            && source != "registry+https://github.com/rust-lang/crates.io-index"
        {
            report.add("Cargo.lock", format!("{} comes from {source}", package["name"]));
        }
    }
    report.hold();
}

/// `Cargo.lock`: the whole graph, for all features and systems at once.
struct Lock {
    packages: Vec<toml::Table>,
}

impl Lock {
    fn read() -> Self {
        let mut lock: toml::Table = read("Cargo.lock").parse().expect("Cargo.lock is TOML");
        let Some(toml::Value::Array(packages)) = lock.remove("package") else {
            panic!("Cargo.lock lists packages")
        };
        Self { packages: packages.into_iter().filter_map(|package| package.try_into().ok()).collect() }
    }

    fn versions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.packages
            .iter()
            .filter_map(|package| Some((package["name"].as_str()?, package["version"].as_str()?)))
    }

    /// Names of all packages that `name` depends on, directly or not.
    fn reachable(&self, name: &str) -> BTreeSet<&str> {
        let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for package in &self.packages {
            let targets = package.get("dependencies").and_then(toml::Value::as_array);
            // An entry reads `name`, or `name version` where several versions are locked; by name is close enough.
            let targets = targets.into_iter().flatten().filter_map(|entry| entry.as_str()?.split(' ').next());
            edges.entry(package["name"].as_str().expect("a package has a name")).or_default().extend(targets);
        }
        let mut found = BTreeSet::new();
        let mut open: Vec<&str> = edges.get(name).cloned().unwrap_or_default();
        while let Some(package) = open.pop() {
            if found.insert(package) {
                open.extend(edges.get(package).into_iter().flatten());
            }
        }
        found
    }
}
