//! An agent's Markdown as Telegram shows it.
//!
//! Any text is taken, half of one too: while an answer streams in, what is still open (a fence, a
//! `**`) is shown as far as it has come. What Telegram has no form for keeps its words: headings
//! become bold, list items get a bullet, tables become blocks of code.

mod table;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::rendered::{self, Entity, Rendered, Style};

/// How deep lists are indented, in levels.
const DEEPEST: usize = 8;

/// Renders `markdown`.
#[must_use]
pub fn render(markdown: &str) -> Rendered {
    let source = rendered::clean(markdown);
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut page = Page::default();
    for event in Parser::new_ext(&source, options) {
        page.take(event);
    }
    let rendered = page.finish();
    if rendered.is_empty() {
        // Nothing but marks, such as a row of fences: they are what was said.
        return Rendered::plain(&source);
    }
    rendered
}

/// The rendering so far.
#[derive(Default)]
struct Page {
    text: String,
    units: usize,
    entities: Vec<Entity>,
    /// What is open, with where it began; none for what is not shown as an entity.
    open: Vec<(Option<Style>, usize)>,
    /// Line breaks that are due before the next character.
    breaks: usize,
    /// For each open list: the number of its next item, if it is numbered.
    lists: Vec<Option<u64>>,
    /// The rows of the open table.
    table: Option<Vec<Vec<String>>>,
    /// True inside a block of code, whose lines are not indented.
    verbatim: bool,
}

impl Page {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(end) => self.end(end),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.write(&text),
            Event::Code(text) => {
                self.begin(Some(Style::Code));
                self.write(&text);
                self.close();
            }
            Event::SoftBreak | Event::HardBreak => self.write("\n"),
            Event::Rule => {
                self.breaks = self.breaks.max(2);
                self.write("———");
                self.breaks = 2;
            }
            Event::TaskListMarker(done) => self.write(if done { "☑ " } else { "☐ " }),
            Event::FootnoteReference(text) | Event::InlineMath(text) | Event::DisplayMath(text) => {
                self.write(&text)
            }
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph | Tag::HtmlBlock => {}
            Tag::Heading { .. } => {
                self.breaks = self.breaks.max(2);
                self.begin(Some(Style::Bold));
            }
            Tag::BlockQuote(_) => self.begin(Some(Style::Quote)),
            Tag::CodeBlock(kind) => {
                let language = match kind {
                    CodeBlockKind::Fenced(info) => language(&info),
                    CodeBlockKind::Indented => None,
                };
                self.begin(Some(Style::Pre(language)));
                self.verbatim = true;
            }
            Tag::List(first) => {
                if !self.lists.is_empty() {
                    self.breaks = self.breaks.max(1);
                }
                self.lists.push(first);
            }
            Tag::Item => {
                self.breaks = self.breaks.max(1);
                let bullet = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        let bullet = format!("{number}. ");
                        *number = number.saturating_add(1);
                        bullet
                    }
                    _ => "• ".to_owned(),
                };
                self.write(&bullet);
            }
            Tag::Table(_) => self.table = Some(Vec::new()),
            Tag::TableHead | Tag::TableRow => self.rows().push(Vec::new()),
            Tag::TableCell => {
                if let Some(row) = self.rows().last_mut() {
                    row.push(String::new());
                }
            }
            Tag::Emphasis => self.begin(Some(Style::Italic)),
            Tag::Strong => self.begin(Some(Style::Bold)),
            Tag::Strikethrough => self.begin(Some(Style::Strike)),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                self.begin(Some(Style::Link(dest_url.into_string())));
            }
            _ => self.begin(None),
        }
    }

    fn end(&mut self, end: TagEnd) {
        match end {
            TagEnd::Paragraph | TagEnd::HtmlBlock => self.breaks = 2,
            TagEnd::Heading(_) | TagEnd::BlockQuote(_) => {
                self.close();
                self.breaks = 2;
            }
            TagEnd::CodeBlock => {
                self.verbatim = false;
                self.close();
                self.breaks = 2;
            }
            TagEnd::List(_) => {
                self.lists.pop();
                self.breaks = if self.lists.is_empty() { 2 } else { 1 };
            }
            // A loose item's paragraph has asked for a blank line, which stands.
            TagEnd::Item => self.breaks = self.breaks.max(1),
            TagEnd::Table => {
                let rows = self.table.take().unwrap_or_default();
                self.begin(Some(Style::Pre(None)));
                self.verbatim = true;
                self.write(&table::columns(&rows));
                self.verbatim = false;
                self.close();
                self.breaks = 2;
            }
            TagEnd::TableHead | TagEnd::TableRow | TagEnd::TableCell => {}
            _ => self.close(),
        }
    }

    fn rows(&mut self) -> &mut Vec<Vec<String>> {
        self.table.get_or_insert_default()
    }

    fn begin(&mut self, style: Option<Style>) {
        // Due line breaks belong before what begins, not into it.
        if self.table.is_none() {
            self.write_breaks();
        }
        self.open.push((style, self.units));
    }

    fn close(&mut self) {
        let Some((Some(style), start)) = self.open.pop() else {
            return;
        };
        if self.table.is_some() {
            return;
        }
        if let Style::Link(address) = &style {
            let shown = self.since(start);
            if shown.trim() == address {
                return;
            }
            if !is_web(address) {
                let address = format!(" ({address})");
                return self.write(&address);
            }
        }
        let lost = self.open.iter().any(|(outer, _)| match (outer, &style) {
            (Some(Style::Link(_)), Style::Link(_)) => true,
            // A quotation cut around a word of it would fall into three.
            (Some(Style::Quote), Style::Code) => true,
            (outer, inner) => outer.as_ref() == Some(inner),
        });
        if !lost && start < self.units {
            self.entities.push(Entity {
                range: start..self.units,
                style,
            });
        }
    }

    /// The text from a position in UTF-16 units on.
    fn since(&self, start: usize) -> &str {
        let mut units = self.units;
        for (at, c) in self.text.char_indices().rev() {
            if units <= start {
                return &self.text[at + c.len_utf8()..];
            }
            units -= c.len_utf16();
        }
        &self.text
    }

    fn write(&mut self, text: &str) {
        if let Some(row) = self.table.as_mut().and_then(|rows| rows.last_mut()) {
            if let Some(cell) = row.last_mut() {
                cell.push_str(&text.replace('\n', " "));
            }
            return;
        }
        self.write_breaks();
        for c in text.chars() {
            self.push(c);
            if c == '\n' && !self.verbatim {
                self.indent();
            }
        }
    }

    fn write_breaks(&mut self) {
        let due = std::mem::take(&mut self.breaks);
        if self.text.is_empty() || due == 0 {
            return;
        }
        let there = self.text.len() - self.text.trim_end_matches('\n').len();
        for _ in there..due {
            self.push('\n');
        }
        self.indent();
    }

    fn indent(&mut self) {
        for _ in 1..self.lists.len().min(DEEPEST) {
            self.push(' ');
            self.push(' ');
        }
    }

    fn push(&mut self, c: char) {
        self.text.push(c);
        self.units += c.len_utf16();
    }

    fn finish(self) -> Rendered {
        Rendered {
            text: self.text,
            entities: apart_from_code(self.entities),
        }
        .trimmed()
    }
}

/// Cuts styles around the code in them: Telegram shows code inside nothing else.
fn apart_from_code(entities: Vec<Entity>) -> Vec<Entity> {
    let mut code: Vec<_> = entities
        .iter()
        .filter(|e| e.style.is_code())
        .map(|e| e.range.clone())
        .collect();
    code.sort_by_key(|range| range.start);
    let mut cut = Vec::with_capacity(entities.len());
    for entity in entities {
        if entity.style.is_code() {
            cut.push(entity);
            continue;
        }
        let mut start = entity.range.start;
        let first = code.partition_point(|hole| hole.end <= entity.range.start);
        let inside = code[first..]
            .iter()
            .take_while(|hole| hole.start < entity.range.end);
        for hole in inside {
            if start < hole.start {
                cut.push(Entity {
                    range: start..hole.start,
                    style: entity.style.clone(),
                });
            }
            start = hole.end;
        }
        if start < entity.range.end {
            cut.push(Entity {
                range: start..entity.range.end,
                style: entity.style,
            });
        }
    }
    rendered::sort(&mut cut);
    cut
}

/// The language that a fence names, if it is one word of the kind that names languages.
fn language(info: &str) -> Option<String> {
    let word = info.split_whitespace().next()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-#._".contains(c);
    (word.len() <= 32 && word.chars().all(plain)).then(|| word.to_owned())
}

/// True for an address that Telegram takes as a link.
fn is_web(address: &str) -> bool {
    reqwest::Url::parse(address)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rendered::tests::assert_well_formed;

    fn shown(markdown: &str) -> (String, Vec<(std::ops::Range<usize>, Style)>) {
        let rendered = render(markdown);
        assert_well_formed(&rendered);
        let entities = rendered.entities.into_iter().map(|e| (e.range, e.style));
        (rendered.text, entities.collect())
    }

    #[test]
    fn inline_styles_become_entities() {
        let (text, entities) = shown("a **b** *c* ~~d~~ `e` [f](https://g.example/)");
        assert_eq!(text, "a b c d e f");
        assert_eq!(
            entities,
            [
                (2..3, Style::Bold),
                (4..5, Style::Italic),
                (6..7, Style::Strike),
                (8..9, Style::Code),
                (10..11, Style::Link("https://g.example/".to_owned())),
            ]
        );
    }

    #[test]
    fn offsets_count_utf16_units() {
        let (_, entities) = shown("😀 **b**");
        assert_eq!(entities, [(3..4, Style::Bold)]);
    }

    #[test]
    fn an_open_fence_is_a_code_block_as_far_as_it_has_come() {
        let (text, entities) = shown("see:\n\n```rust\nfn main() {\n    x");
        assert_eq!(text, "see:\n\nfn main() {\n    x");
        assert_eq!(entities, [(6..23, Style::Pre(Some("rust".to_owned())))]);
    }

    #[test]
    fn an_open_emphasis_is_shown_as_written() {
        assert_eq!(shown("so **bol").0, "so **bol");
    }

    #[test]
    fn lists_keep_their_numbers_and_their_depth() {
        let (text, _) = shown("1. a\n2. b\n   - c\n   - d\n3. e\n\nf");
        assert_eq!(text, "1. a\n2. b\n  • c\n  • d\n3. e\n\nf");
    }

    #[test]
    fn headings_are_bold_and_stand_apart() {
        let (text, entities) = shown("# A\nb\n## C\nd");
        assert_eq!(text, "A\n\nb\n\nC\n\nd");
        assert_eq!(entities, [(0..1, Style::Bold), (6..7, Style::Bold)]);
    }

    #[test]
    fn a_table_is_a_block_of_code_with_its_columns_aligned() {
        let (text, entities) = shown("|a|bbb|\n|-|-|\n|cc|d|\n");
        assert_eq!(text, "a  │ bbb\ncc │ d");
        assert_eq!(entities, [(0..text.chars().count(), Style::Pre(None))]);
    }

    #[test]
    fn code_stands_inside_no_other_entity() {
        let (_, entities) = shown("**a `b` c**");
        assert_eq!(
            entities,
            [
                (0..1, Style::Bold),
                (2..3, Style::Code),
                (4..5, Style::Bold)
            ]
        );
        let (_, entities) = shown("> a `b`\n> > c");
        assert_eq!(entities, [(0..6, Style::Quote)]);
        let (text, entities) = shown("> a\n>\n> ```\n> b\n> ```");
        assert_eq!(text, "a\n\nb");
        assert_eq!(entities, [(0..1, Style::Quote), (3..4, Style::Pre(None))]);
    }

    #[test]
    fn an_address_that_is_no_web_address_is_written_out() {
        assert_eq!(shown("[x](src/x.rs)").0, "x (src/x.rs)");
        assert_eq!(shown("<https://a.example>").1, []);
    }

    #[test]
    fn marks_around_nothing_are_shown_as_written() {
        assert_eq!(shown("```").0, "```");
        assert_eq!(shown("> >").0, "> >");
    }

    #[test]
    fn lists_without_end_do_not_grow_beyond_measure() {
        let text = "1. ".repeat(2000);
        assert!(render(&text).text.len() < 20 * text.len());
    }

    #[test]
    fn html_is_shown_as_written() {
        assert_eq!(
            shown("a <b>c</b>\n\n<div>\nx\n</div>").0,
            "a <b>c</b>\n\n<div>\nx\n</div>"
        );
    }

    proptest! {
        #[test]
        fn any_text_renders_well_formed(text in "[a-c😀 \\n*_~`>#|\\-\\[\\]()1.!<\\\\]{0,80}") {
            assert_well_formed(&render(&text));
        }

        #[test]
        fn every_word_of_plain_text_is_kept(words in prop::collection::vec("[a-zäö😀]{1,9}", 0..30)) {
            let text = words.join(" ");
            prop_assert_eq!(render(&text).text, text);
        }
    }
}
