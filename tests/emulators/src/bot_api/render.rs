//! A message as a web page and as a transcript show it.

use super::chat::Message;
use super::entities::EntityKind;
use super::formatted::Formatted;

impl Message {
    /// Its text as HTML: escaped, with its entities as tags.
    pub fn html(&self) -> String {
        self.now().content.html()
    }

    /// Its text, the name of its file and its buttons, for a transcript.
    pub fn plain(&self) -> String {
        let mut plain = String::new();
        if let Some(file) = &self.attachment {
            plain += &format!("<file {}, {} bytes> ", file.name, file.size);
        }
        plain += self.text();
        for button in self.keyboard().buttons() {
            plain += &format!(" [{}]", button.label);
        }
        plain
    }
}

impl Formatted {
    /// Escaped, with the entities as tags.
    pub fn html(&self) -> String {
        let mut html = String::with_capacity(self.text.len());
        // Entities are sorted and nest, so what was opened last is what closes first.
        let mut coming = self.entities.iter().peekable();
        let mut open = Vec::new();
        let mut position = 0;
        for character in self.text.chars() {
            close_until(position, &mut open, &mut html);
            while let Some(entity) = coming.next_if(|entity| entity.offset <= position) {
                let (start, end) = tags(&entity.kind);
                html += &start;
                open.push((entity.end(), end));
            }
            escape_into(&mut html, character);
            position += character.len_utf16();
        }
        close_until(usize::MAX, &mut open, &mut html);
        html
    }
}

fn close_until(position: usize, open: &mut Vec<(usize, &'static str)>, html: &mut String) {
    while let Some((_, tag)) = open.pop_if(|(end, _)| *end <= position) {
        *html += tag;
    }
}

fn tags(kind: &EntityKind) -> (String, &'static str) {
    let (start, end) = match kind {
        EntityKind::Bold => ("<b>", "</b>"),
        EntityKind::Italic => ("<i>", "</i>"),
        EntityKind::Underline => ("<u>", "</u>"),
        EntityKind::Strikethrough => ("<s>", "</s>"),
        EntityKind::Spoiler => ("<span class=\"spoiler\">", "</span>"),
        EntityKind::Blockquote | EntityKind::ExpandableBlockquote => {
            ("<blockquote>", "</blockquote>")
        }
        EntityKind::Code => ("<code>", "</code>"),
        EntityKind::Pre { language: None } => ("<pre>", "</pre>"),
        EntityKind::Pre {
            language: Some(language),
        } => {
            return (
                format!("<pre data-language=\"{}\">", escape(language)),
                "</pre>",
            );
        }
        // The address passed `is_link` when it was sent, so it has a scheme that runs nothing.
        EntityKind::TextLink { url } => {
            let address = escape(url);
            return (
                format!("<a href=\"{address}\" rel=\"noreferrer noopener\">"),
                "</a>",
            );
        }
        EntityKind::Detected(_) => ("", ""),
    };
    (start.to_owned(), end)
}

/// Text that can stand between tags or in a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    text.chars()
        .for_each(|character| escape_into(&mut escaped, character));
    escaped
}

fn escape_into(html: &mut String, character: char) {
    match character {
        '&' => *html += "&amp;",
        '<' => *html += "&lt;",
        '>' => *html += "&gt;",
        '"' => *html += "&quot;",
        '\'' => *html += "&#39;",
        other => html.push(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tags_nest_as_entities_do_and_text_is_escaped() {
        let entities = json!([
            {"type": "bold", "offset": 0, "length": 7},
            {"type": "italic", "offset": 2, "length": 3},
            {"type": "text_link", "offset": 8, "length": 1, "url": "https://a.b/?q=\"&c"},
            {"type": "pre", "offset": 9, "length": 1, "language": "\"><script>"},
        ]);
        let formatted = Formatted::read("😀<b>ab x&", entities.as_array().cloned()).unwrap();
        assert_eq!(
            formatted.html(),
            "<b>😀<i>&lt;b&gt;</i>ab</b> \
             <a href=\"https://a.b/?q=&quot;&amp;c\" rel=\"noreferrer noopener\">x</a>\
             <pre data-language=\"&quot;&gt;&lt;script&gt;\">&amp;</pre>"
        );
    }
}
