//! The paths that code mentions: in expressions and types, in `use` within functions, in macros and in attributes.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, Meta, UseTree, Visibility};

use super::items::{attributes, is_test};

/// A path that a module mentions.
pub(super) struct Mention {
    pub(super) segments: Vec<String>,
    /// Its line, from 1.
    pub(super) line: usize,
    /// Whether a `pub use` re-exports it.
    pub(super) shown: bool,
    /// Whether all names below it are imported (`use ..::*`).
    pub(super) glob: bool,
    /// Whether it calls a macro.
    pub(super) call: bool,
}

/// One path of a `use`.
pub(super) struct Import {
    pub(super) mention: Mention,
    /// The name it gets here; none for `*`.
    pub(super) alias: Option<String>,
}

/// All paths of a `use`.
pub(super) fn imports(used: &ItemUse) -> Vec<Import> {
    let line = used.use_token.span.start().line;
    let shown = !matches!(used.vis, Visibility::Inherited);
    let mut found = vec![];
    flatten(&used.tree, &mut vec![], &mut |segments, alias| {
        found.push(Import { mention: Mention { segments, line, shown, glob: alias.is_none(), call: false }, alias });
    });
    found
}

/// Calls `each` with every path of a `use` and the name it gets here; without a name for `*`.
fn flatten(tree: &UseTree, before: &mut Vec<String>, each: &mut impl FnMut(Vec<String>, Option<String>)) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, each);
            before.pop();
        }
        UseTree::Name(name) if name.ident == "self" => each(before.clone(), before.last().cloned()),
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            each([before.clone(), vec![name.clone()]].concat(), Some(name));
        }
        UseTree::Rename(rename) if rename.ident == "self" => each(before.clone(), Some(rename.rename.to_string())),
        UseTree::Rename(rename) => {
            let path = [before.clone(), vec![rename.ident.to_string()]].concat();
            each(path, Some(rename.rename.to_string()));
        }
        UseTree::Glob(_) => each(before.clone(), None),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, each)),
    }
}

/// Collects the paths of an item, without those of its tests.
pub(super) struct Paths<'a> {
    pub(super) found: &'a mut Vec<Mention>,
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let line = path.segments.first().map_or(0, |segment| segment.ident.span().start().line);
        self.push(segments, line, false);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, found: &'ast syn::Macro) {
        let segments: Vec<String> = found.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.push(segments, found.bang_token.span.start().line, true);
        self.tokens(found.tokens.clone());
    }

    /// Attributes name functions in strings, as `#[serde(with = "super::number")]` does.
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.strings(list.tokens.clone());
        }
    }

    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    /// A `use` within a function.
    fn visit_item_use(&mut self, used: &'ast ItemUse) {
        self.found.extend(imports(used).into_iter().map(|import| import.mention));
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_trait_item_fn(self, function);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_test(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !is_test(&local.attrs) {
            visit::visit_local(self, local);
        }
    }
}

impl Paths<'_> {
    fn push(&mut self, segments: Vec<String>, line: usize, call: bool) {
        if !segments.is_empty() {
            self.found.push(Mention { segments, line, shown: false, glob: false, call });
        }
    }

    /// Names joined by `::` in the tokens of a macro.
    fn tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut line, mut colons) = (Vec::<String>::new(), 0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.push(std::mem::take(&mut path), line, false);
                    }
                    if path.is_empty() {
                        line = name.span().start().line;
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                other => {
                    let call = matches!(&other, TokenTree::Punct(mark) if mark.as_char() == '!');
                    self.push(std::mem::take(&mut path), line, call);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.push(path, line, false);
    }

    /// Paths of several segments in the strings of an attribute.
    fn strings(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.strings(group.stream()),
                TokenTree::Literal(literal) => {
                    let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) else { continue };
                    let Ok(path) = text.parse::<syn::Path>() else { continue };
                    let segments: Vec<String> = path.segments.iter().map(|one| one.ident.to_string()).collect();
                    if segments.len() > 1 {
                        self.push(segments, literal.span().start().line, false);
                    }
                }
                _ => {}
            }
        }
    }
}
