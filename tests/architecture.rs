//! Imports run downhill: the layers that `docs/ARCHITECTURE.md` lists, read against the source of
//! both crates.
//!
//! A module is a file; `mod.rs` is its folder. An import is a path that begins with `crate`, `self`
//! or `super`, in a `use` or anywhere else. What is compiled for tests only does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree};

/// Modules and the modules that each imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The layers of a crate, the highest first: a block of ARCHITECTURE.md whose info string is
/// `layers CRATE`. A line names the modules of one layer, and may go on with a remark behind `#`.
fn layers(krate: &str) -> Vec<Vec<String>> {
    let document = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let fence = format!("```layers {krate}\n");
    let start = document.find(&fence).expect("the document lists layers") + fence.len();
    let block = document[start..].split("```").next().unwrap();
    let names = |line: &str| {
        let line = line.split('#').next().unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    };
    block.lines().map(names).collect()
}

/// The source files of a crate by module, without `lib.rs` and programs.
fn modules(krate: &str) -> BTreeMap<String, String> {
    let source = root().join(krate).join("src");
    let mut found = BTreeMap::new();
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(&source).unwrap().with_extension("");
            let name = module_name(&relative);
            let is_library = name != "lib" && !name.starts_with("bin::");
            if is_library && !name.split("::").any(|part| part == "tests") {
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn module_name(relative: &Path) -> String {
    let parts: Vec<_> = relative.iter().map(|part| part.to_str().unwrap()).collect();
    let parts = match parts.split_last() {
        Some((&"mod", folder)) => folder,
        _ => &parts[..],
    };
    parts.join("::")
}

/// What `lib.rs` re-exports: where `crate::Name` leads.
fn exports(krate: &str) -> BTreeMap<String, String> {
    let lib = fs::read_to_string(root().join(krate).join("src/lib.rs")).unwrap();
    let mut paths = Vec::new();
    for item in syn::parse_file(&lib).unwrap().items {
        if let Item::Use(item) = item {
            flatten(&item.tree, String::new(), &mut paths);
        }
    }
    let name = |path: &str| path.rsplit("::").next().unwrap().to_owned();
    paths.into_iter().map(|path| (name(&path), path)).collect()
}

/// All paths of a `use` tree.
fn flatten(tree: &UseTree, before: String, paths: &mut Vec<String>) {
    let below = |name: &str| match &*before {
        "" => name.to_owned(),
        before => format!("{before}::{name}"),
    };
    match tree {
        UseTree::Path(path) => flatten(&path.tree, below(&path.ident.to_string()), paths),
        UseTree::Name(name) => paths.push(below(&name.ident.to_string())),
        UseTree::Rename(name) => paths.push(below(&name.ident.to_string())),
        UseTree::Glob(_) => paths.push(before),
        UseTree::Group(group) => {
            let trees = group.items.iter();
            trees.for_each(|tree| flatten(tree, before.clone(), paths));
        }
    }
}

/// Gathers the paths of a file that lead into its crate.
struct Paths {
    /// The module that the visitor is in; modules within the file included.
    module: Vec<String>,
    found: Vec<String>,
}

impl Paths {
    /// Adds a path as seen from the crate's root, if it leads into the crate.
    fn add(&mut self, path: &str) {
        let mut parts: Vec<_> = path.split("::").map(str::to_owned).collect();
        let mut from = match &*parts[0] {
            "crate" => Vec::new(),
            "self" | "super" => self.module.clone(),
            _ => return,
        };
        while matches!(parts.first().map(|part| &**part), Some("super")) {
            from.pop();
            parts.remove(0);
        }
        if matches!(parts.first().map(|part| &**part), Some("crate" | "self")) {
            parts.remove(0);
        }
        from.extend(parts);
        self.found.push(from.join("::"));
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    let is_test = |attribute: &Attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, syn::Meta::List(list)
                if ["test", "loom", "doctest"].contains(&&*list.tokens.to_string()))
    };
    attributes.iter().any(is_test)
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::Const(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        if !is_for_tests(&variant.attrs) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if !is_for_tests(&arm.attrs) {
            visit::visit_arm(self, arm);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut paths = Vec::new();
        flatten(&item.tree, String::new(), &mut paths);
        paths.iter().for_each(|path| self.add(path));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts = path.segments.iter().map(|part| part.ident.to_string());
        self.add(&parts.collect::<Vec<_>>().join("::"));
        visit::visit_path(self, path);
    }
}

/// The imports among these modules, given what `lib.rs` re-exports.
fn imports(modules: &BTreeMap<String, String>, exports: &BTreeMap<String, String>) -> Imports {
    let resolve = |path: &str| {
        let path = match path.split_once("::") {
            None => exports.get(path).map_or(path, |export| export),
            Some(_) => path,
        };
        let mut path = path.to_owned();
        while !modules.contains_key(&path) {
            path.truncate(path.rfind("::")?);
        }
        Some(path)
    };
    let mut all = Imports::new();
    for (name, text) in modules {
        let module = name.split("::").map(str::to_owned).collect();
        let mut paths = Paths {
            module,
            found: Vec::new(),
        };
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        paths.visit_file(&file);
        let targets = paths.found.iter().filter_map(|path| resolve(path));
        // What belongs to a folder as a whole stands in its `mod.rs`.
        let is_own = |target: &String| target == name || name.starts_with(&format!("{target}::"));
        all.insert(
            name.clone(),
            targets.filter(|target| !is_own(target)).collect(),
        );
    }
    all
}

/// Imports that run uphill, and modules that no layer has.
fn uphill(imports: &Imports, layers: &[Vec<String>]) -> Vec<String> {
    let layer_of = |module: &str| {
        let mut prefix = module;
        loop {
            let is_here = |layer: &Vec<String>| layer.iter().any(|name| name == prefix);
            if let Some(layer) = layers.iter().position(is_here) {
                return Some((layer, prefix.to_owned()));
            }
            prefix = &prefix[..prefix.rfind("::")?];
        }
    };
    let mut faults = Vec::new();
    for (module, targets) in imports {
        let Some((from, room)) = layer_of(module) else {
            faults.push(format!("{module} is in no layer"));
            continue;
        };
        for target in targets {
            if let Some((to, other)) = layer_of(target)
                && (to < from || (to == from && room != other))
            {
                faults.push(format!("{module} imports {target}"));
            }
        }
    }
    faults
}

/// A module that imports itself through others, with the others.
fn circle(imports: &Imports) -> Option<Vec<String>> {
    imports.keys().find_map(|start| {
        let mut came_from = BTreeMap::new();
        let mut open = vec![start.clone()];
        while let Some(module) = open.pop() {
            for target in imports.get(&module).into_iter().flatten() {
                if target == start {
                    let mut path = vec![start.clone(), module.clone()];
                    while let Some(before) = came_from.get(path.last().unwrap()) {
                        path.push(String::clone(before));
                    }
                    path.reverse();
                    return Some(path);
                }
                if !came_from.contains_key(target) {
                    came_from.insert(target.clone(), module.clone());
                    open.push(target.clone());
                }
            }
        }
        None
    })
}

fn check(krate: &str) {
    let imports = imports(&modules(krate), &exports(krate));
    let count: usize = imports.values().map(BTreeSet::len).sum();
    assert!(count > 50, "only {count} imports found in {krate}");
    let faults = uphill(&imports, &layers(krate));
    assert!(
        faults.is_empty(),
        "uphill imports in {krate}: {}",
        faults.join("; ")
    );
    if let Some(circle) = circle(&imports) {
        panic!("a circle of imports in {krate}: {}", circle.join(" -> "));
    }
}

#[test]
fn imports_of_the_core_run_downhill() {
    check("maslite-core");
}

#[test]
fn imports_between_the_rooms_of_maslite_mp_run_downhill() {
    check("maslite-mp");
}

/// A further kind of link is one new file of `links`: no other room imports a kind.
#[test]
fn no_room_but_links_tells_kinds_of_link_apart() {
    let found = imports(&modules("maslite-mp"), &exports("maslite-mp"));
    let is_kind = |module: &str| {
        let kinds = ["channel", "frame", "ipc", "ring"];
        let mut parts = module.split("::");
        parts.next() == Some("links") && parts.next().is_some_and(|part| kinds.contains(&part))
    };
    let is_elsewhere = |module: &str| !matches!(module.split("::").next(), Some("links" | "dev"));
    let mut importing = Vec::new();
    for (module, imported) in &found {
        let of_kinds = imported.iter().filter(|imported| is_kind(imported));
        let wrong = of_kinds.filter(|_| is_elsewhere(module));
        importing.extend(wrong.map(|imported| format!("{module} imports {imported}")));
    }
    assert_eq!(importing, Vec::<String>::new());
    let kinds = &found["links::kinds"];
    assert!(kinds.iter().any(|imported| is_kind(imported)), "{kinds:?}");
}

#[test]
fn the_layers_name_modules_that_exist() {
    for krate in ["maslite-core", "maslite-mp"] {
        let modules = modules(krate);
        for name in layers(krate).concat() {
            assert!(modules.contains_key(&name), "{krate} has no module {name}");
        }
    }
}

#[test]
fn uphill_imports_and_circles_are_found() {
    let text = |text: &str| text.to_owned();
    let modules = BTreeMap::from([
        (
            text("top"),
            text("use crate::middle::{deep::Thing, Other};"),
        ),
        (
            text("middle"),
            text("mod deep; fn f() { crate::bottom::call() }"),
        ),
        (
            text("middle::deep"),
            text("#[cfg(test)] use crate::top::Tests; struct Thing;"),
        ),
        (
            text("bottom"),
            text("mod inner { use super::super::Shown; }"),
        ),
    ]);
    let exports = BTreeMap::from([(text("Shown"), text("middle::deep::Thing"))]);
    let imports = imports(&modules, &exports);
    let listed = |module: &str| imports[module].iter().cloned().collect::<Vec<_>>();
    assert_eq!(listed("top"), ["middle", "middle::deep"]);
    assert_eq!(listed("middle"), ["bottom"]);
    assert_eq!(listed("middle::deep"), Vec::<String>::new());
    assert_eq!(listed("bottom"), ["middle::deep"]);
    let layers = [
        vec![text("top")],
        vec![text("middle")],
        vec![text("bottom")],
    ];
    assert_eq!(uphill(&imports, &layers), ["bottom imports middle::deep"]);
    assert_eq!(circle(&imports), None);
    let mut round = imports.clone();
    round
        .get_mut("middle::deep")
        .unwrap()
        .insert(text("bottom"));
    assert_eq!(
        circle(&round).unwrap(),
        ["bottom", "middle::deep", "bottom"]
    );
}

/// A file that is longer is split by what its parts are responsible for.
const LONGEST_FILE: usize = 700;

#[test]
fn no_source_file_is_longer_than_a_person_reads() {
    let mut folders = [
        "benches",
        "examples",
        "extensions",
        "maslite-core",
        "maslite-mp",
        "tests",
    ]
    .map(PathBuf::from)
    .to_vec();
    let mut longer = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            let shown = path.to_str().unwrap().to_owned();
            if root().join(&path).is_dir() {
                folders.extend((!shown.ends_with("target")).then_some(path));
            } else if shown.ends_with(".rs") {
                let lines = fs::read_to_string(root().join(&path)).unwrap();
                let lines = lines.lines().count();
                if lines > LONGEST_FILE {
                    longer.push(format!("{shown}: {lines} lines"));
                }
            }
        }
    }
    assert!(longer.is_empty(), "split {}", longer.join(", "));
}
