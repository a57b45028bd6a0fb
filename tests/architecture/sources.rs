//! What each source file imports, read with a Rust parser.
//!
//! Paths are resolved to the file that defines the item, through re-exports in a `mod.rs`. Code
//! under `#[cfg(test)]` is left out, inline modules and files alike.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::visit::{self, Visit};

/// A module's path that begins with its crate: `aftertone_core::proto::sip::uri`.
pub type ModulePath = Vec<String>;

/// All source files of both packages.
pub struct Sources {
    files: BTreeMap<ModulePath, Source>,
}

/// One source file.
struct Source {
    /// Relative to the project's root.
    path: PathBuf,
    /// Names that `use` brings in, with what they stand for.
    aliases: BTreeMap<String, ModulePath>,
    /// Every path that the file mentions, not yet resolved.
    mentioned: BTreeSet<ModulePath>,
    /// Modules below this one, declared without `#[cfg(test)]`.
    children: BTreeSet<String>,
    /// Every identifier in it.
    words: BTreeSet<String>,
    /// Names of the structs, enums, traits and type aliases that it defines.
    types: Vec<String>,
}

impl Sources {
    /// Reads `src`, from the roots of its three crates.
    pub fn read(project: &Path) -> Self {
        let mut sources = Self { files: BTreeMap::new() };
        for (root, name) in [
            ("src/core/lib.rs", "aftertone_core"),
            ("src/lib.rs", "aftertone"),
            ("src/main.rs", "main"),
        ] {
            sources.read_module(project, Path::new(root), vec![name.to_owned()]);
        }
        sources
    }

    fn read_module(&mut self, project: &Path, path: &Path, module: ModulePath) {
        let text = fs::read_to_string(project.join(path)).unwrap();
        let file =
            syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut reader = Reader {
            module: module.clone(),
            aliases: BTreeMap::new(),
            mentioned: BTreeSet::new(),
            children: BTreeSet::new(),
            words: BTreeSet::new(),
            types: Vec::new(),
        };
        reader.visit_file(&file);
        let is_root = path.ends_with("lib.rs") || path.ends_with("main.rs");
        let folder = path.parent().unwrap().to_owned();
        let folder = match path.file_stem().unwrap().to_str().unwrap() {
            _ if is_root => folder,
            "mod" => folder,
            stem => folder.join(stem),
        };
        for child in &reader.children {
            let beside = folder.join(format!("{child}.rs"));
            let inside = folder.join(child).join("mod.rs");
            let path = if project.join(&beside).exists() { beside } else { inside };
            let mut below = module.clone();
            below.push(child.clone());
            self.read_module(project, &path, below);
        }
        let Reader { aliases, mentioned, children, words, types, .. } = reader;
        let source = Source { path: path.to_owned(), aliases, mentioned, children, words, types };
        assert!(self.files.insert(module, source).is_none(), "{} was read twice", path.display());
    }

    /// The number of files that were read.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Each module with the modules that define the items it uses, without itself.
    pub fn imports(&self) -> BTreeMap<&ModulePath, BTreeSet<&ModulePath>> {
        self.files
            .iter()
            .map(|(module, source)| {
                let used = source
                    .mentioned
                    .iter()
                    .filter_map(|path| self.defined_in(module, path, 0))
                    .filter(|used| *used != module)
                    .collect();
                (module, used)
            })
            .collect()
    }

    /// The paths in `module` that lead to items of `used`, as they are written there.
    pub fn reasons(&self, module: &ModulePath, used: &ModulePath) -> BTreeSet<&str> {
        let source = &self.files[module];
        let leads_there = |path: &&ModulePath| self.defined_in(module, path, 0) == Some(used);
        source
            .mentioned
            .iter()
            .filter(leads_there)
            .filter_map(|path| path.last())
            .map(String::as_str)
            .collect()
    }

    /// Each file's path and identifiers.
    pub fn words(&self) -> impl Iterator<Item = (&Path, &BTreeSet<String>)> {
        self.files.values().map(|source| (source.path.as_path(), &source.words))
    }

    /// Each file's path and the names of the types that it defines.
    pub fn types(&self) -> impl Iterator<Item = (&Path, &[String])> {
        self.files.values().map(|source| (source.path.as_path(), source.types.as_slice()))
    }

    /// The path of a module's file, from the project's root.
    pub fn path(&self, module: &ModulePath) -> &Path {
        &self.files[module].path
    }

    /// The module whose file defines what `path` means inside `module`; `None` for a path of
    /// another crate, and for one that names a module and nothing in it.
    fn defined_in(
        &self,
        module: &ModulePath,
        path: &[String],
        depth: usize,
    ) -> Option<&ModulePath> {
        assert!(depth < 20, "{path:?} leads in a circle");
        let source = &self.files[module];
        let first = path.first()?;
        if is_crate(first) {
            return self.found_below(path, depth);
        }
        if source.children.contains(first) {
            let absolute: ModulePath = module.iter().chain(path).cloned().collect();
            return self.found_below(&absolute, depth);
        }
        let target = source.aliases.get(first)?;
        if target.first() == Some(first) {
            // Another crate, or an item of one.
            return None;
        }
        let absolute: ModulePath = target.iter().chain(&path[1..]).cloned().collect();
        self.defined_in(module, &absolute, depth + 1)
    }

    fn found_below(&self, path: &[String], depth: usize) -> Option<&ModulePath> {
        let length =
            (1..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(length);
        let (module, source) = self.files.get_key_value(module)?;
        let item = rest.first()?;
        match source.aliases.get(item) {
            // A re-export: the defining file counts.
            Some(target) if is_crate(&target[0]) || source.children.contains(&target[0]) => {
                let absolute: ModulePath = target.iter().chain(&rest[1..]).cloned().collect();
                self.defined_in(module, &absolute, depth + 1).or(Some(module))
            }
            _ => Some(module),
        }
    }
}

fn is_crate(name: &str) -> bool {
    matches!(name, "aftertone" | "aftertone_core" | "main")
}

/// Collects what one file mentions.
struct Reader {
    module: ModulePath,
    aliases: BTreeMap<String, ModulePath>,
    mentioned: BTreeSet<ModulePath>,
    children: BTreeSet<String>,
    words: BTreeSet<String>,
    types: Vec<String>,
}

impl Reader {
    /// The path with `crate`, `self` and `super` replaced by what they mean.
    fn absolute(&self, path: &[String]) -> ModulePath {
        let mut base = match path.first().map(String::as_str) {
            Some("crate") => vec![self.module[0].clone()],
            Some("self" | "super") => self.module.clone(),
            _ => Vec::new(),
        };
        for part in path {
            match part.as_str() {
                "crate" | "self" => {}
                "super" => {
                    base.pop();
                }
                name => base.push(name.to_owned()),
            }
        }
        base
    }

    fn mention(&mut self, path: &[String]) {
        let path = self.absolute(path);
        if path.len() > 1 || path.first().is_some_and(|name| self.aliases.contains_key(name)) {
            self.mentioned.insert(path);
        }
    }

    /// Reads `use`. A re-export is no import, unless this file uses the name.
    fn read_use(&mut self, tree: &syn::UseTree, before: &[String], is_public: bool) {
        let with = |name: &syn::Ident| -> Vec<String> {
            let mut path = before.to_vec();
            if name != "self" || before.is_empty() {
                path.push(name.to_string());
            }
            path
        };
        match tree {
            syn::UseTree::Path(path) => self.read_use(&path.tree, &with(&path.ident), is_public),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.read_use(tree, before, is_public));
            }
            syn::UseTree::Name(name) => {
                let path = with(&name.ident);
                let alias = path.last().unwrap().clone();
                self.import(alias, &path, is_public);
            }
            syn::UseTree::Rename(rename) => {
                self.import(rename.rename.to_string(), &with(&rename.ident), is_public);
            }
            syn::UseTree::Glob(_) => {
                let mut path = self.absolute(before);
                path.push("*".to_owned());
                self.mentioned.insert(path);
            }
        }
    }

    fn import(&mut self, alias: String, path: &[String], is_public: bool) {
        let path = self.absolute(path);
        if !is_public {
            self.mentioned.insert(path.clone());
        }
        self.aliases.insert(alias, path);
    }

    /// Reads the paths in a macro's arguments, which the parser sees as tokens.
    fn read_tokens(&mut self, tokens: proc_macro2::TokenStream) {
        use proc_macro2::TokenTree;
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            if let TokenTree::Ident(word) = &token {
                self.words.insert(word.to_string());
            }
            match token {
                TokenTree::Ident(name) if path.is_empty() || colons == 2 => {
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' && !path.is_empty() => colons += 1,
                other => {
                    self.mention(&std::mem::take(&mut path));
                    colons = 0;
                    match other {
                        TokenTree::Ident(name) => path.push(name.to_string()),
                        TokenTree::Group(group) => self.read_tokens(group.stream()),
                        _ => {}
                    }
                }
            }
        }
        self.mention(&path);
    }
}

/// Whether a re-export is visible outside its module.
fn is_public(visibility: &syn::Visibility) -> bool {
    !matches!(visibility, syn::Visibility::Inherited)
}

/// Whether an item exists in tests only.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|word| word == "test")
    })
}

impl<'file> Visit<'file> for Reader {
    fn visit_file(&mut self, file: &'file syn::File) {
        // Imports first: other items use their names.
        for item in &file.items {
            if let syn::Item::Use(import) = item
                && !is_test(&import.attrs)
            {
                self.read_use(&import.tree, &[], is_public(&import.vis));
            }
        }
        visit::visit_file(self, file);
    }

    fn visit_item(&mut self, item: &'file syn::Item) {
        let attributes = match item {
            syn::Item::Const(item) => &item.attrs,
            syn::Item::Enum(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Static(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Trait(item) => &item.attrs,
            syn::Item::Type(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if is_test(attributes) {
            return;
        }
        match item {
            syn::Item::Enum(item) => self.types.push(item.ident.to_string()),
            syn::Item::Struct(item) => self.types.push(item.ident.to_string()),
            syn::Item::Trait(item) => self.types.push(item.ident.to_string()),
            syn::Item::Type(item) => self.types.push(item.ident.to_string()),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'file syn::ImplItem) {
        if !matches!(item, syn::ImplItem::Fn(function) if is_test(&function.attrs)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'file syn::ItemMod) {
        match &module.content {
            None => {
                self.children.insert(module.ident.to_string());
            }
            // An inline module: its paths count for its file.
            Some((_, items)) => {
                self.module.push(module.ident.to_string());
                items.iter().for_each(|item| self.visit_item(item));
                self.module.pop();
            }
        }
    }

    fn visit_item_use(&mut self, import: &'file syn::ItemUse) {
        self.read_use(&import.tree, &[], is_public(&import.vis));
    }

    fn visit_path(&mut self, path: &'file syn::Path) {
        let names: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.mention(&names);
        visit::visit_path(self, path);
    }

    fn visit_ident(&mut self, word: &'file syn::Ident) {
        self.words.insert(word.to_string());
    }

    fn visit_attribute(&mut self, attribute: &'file syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.read_tokens(list.tokens.clone());
        }
    }

    fn visit_macro(&mut self, call: &'file syn::Macro) {
        visit::visit_path(self, &call.path);
        self.read_tokens(call.tokens.clone());
    }
}
