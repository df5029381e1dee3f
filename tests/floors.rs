//! Imports point down: the floors of ARCHITECTURE.md, held against the source.

use std::path::{Path, PathBuf};

/// From the top down. A module may import from its own floor and from those after it.
const FLOORS: [&str; 17] = [
    "cli",
    "config",
    "server",
    "scheduler",
    "engine",
    "store",
    "contract",
    "metrics",
    "train",
    "sample",
    "thermo",
    "flow",
    "coords",
    "simulate",
    "trajectory",
    "energy",
    "compute",
];
const GROUND: &str = "math";

/// The lower half is a library for scientists: it knows no runtime, no network and no database.
const LOWER_HALF_FROM: &str = "train";
const UPPER_CRATES: [&str; 10] =
    ["tokio", "tonic", "prost", "sqlx", "object_store", "axum", "tower", "prometheus", "clap", "http"];

fn rank(module: &str) -> Option<usize> {
    if module == GROUND { Some(FLOORS.len()) } else { FLOORS.iter().position(|f| *f == module) }
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// The module that a file is, as a path of names.
fn module_of(file: &Path, root: &Path) -> Vec<String> {
    let relative = file.strip_prefix(root).unwrap().with_extension("");
    let mut names: Vec<String> = relative.iter().map(|n| n.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|n| n == "mod") {
        names.pop();
    }
    names
}

/// The items of a list in braces, up to the brace that closes it; lists within stay with their item.
fn top_level(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[from..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    items
}

/// The first name after every `crate::`, and after every run of `super::` that leads out to the crate's root.
fn imported(text: &str, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + 7..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(top_level(list).into_iter().map(|item| name(item.trim()))),
            None => found.push(name(rest)),
        }
    }
    let mut rest = text;
    while let Some(at) = rest.find("super::") {
        rest = &rest[at..];
        let mut ups = 0;
        while let Some(after) = rest.strip_prefix("super::") {
            ups += 1;
            rest = after;
        }
        if ups >= depth {
            found.push(name(rest));
        }
    }
    found
}

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 80, "the source was not found");
    let lower = rank(LOWER_HALF_FROM).unwrap();
    let mut wrong = Vec::new();
    for file in files {
        let module = module_of(&file, &root);
        if matches!(module[0].as_str(), "lib" | "main") {
            continue;
        }
        let own = rank(&module[0]).unwrap_or_else(|| panic!("{} is on no floor", file.display()));
        let text = std::fs::read_to_string(&file).unwrap();
        // The words of comments are not imports.
        let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        for name in imported(&code, module.len()) {
            if rank(&name).is_some_and(|imported| imported < own) {
                wrong.push(format!("{} imports {name}", file.display()));
            }
        }
        if own >= lower {
            for krate in UPPER_CRATES {
                if code.contains(&format!("{krate}::")) {
                    wrong.push(format!("{} uses {krate}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The test can fail: imports are found in the forms that they are written in.
#[test]
fn imports_are_found() {
    let code = "use crate::server::{A, B};\nuse crate::{engine::X, math};\nfn f() { super::super::store::open() }";
    assert_eq!(imported(code, 2), ["server", "engine", "math", "store"]);
    assert_eq!(imported("use super::prior::Prior;", 2), Vec::<String>::new());
    assert_eq!(imported("use crate::{energy::{System, Potential}, server::Server};", 2), ["energy", "server"]);
}
