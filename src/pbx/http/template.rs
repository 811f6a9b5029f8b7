//! Text with typed placeholders, checked when it is configured.
//!
//! | Written | Means |
//! |---|---|
//! | `{name}` | the value; a request whose value is missing is not sent |
//! | `{name?TEXT}` | the value, or `TEXT` where there is none; `{name?}`: nothing |
//! | `{?name}…{/?}` | what stands between, only where there is a value |
//! | `{!name}…{/!}` | what stands between, only where there is none |
//! | `{name\|json}` | as a whole JSON leaf: a number as a number, `null` where there is none |
//! | `{name\|omit}` | as a whole JSON leaf or form value: the entry is left out where there is none |
//! | `{{` `}}` | a brace |
//!
//! Names: `company`, `extension`; of the profile `profile.id`, `profile.label`, `profile.pbx.NAME` (the
//! profile's own terms for HTTP), `text` (label and note, cut to `text_chars`), `note`, `until`,
//! `available_at`; of the change `transition`, `generation`, `previous.FIELD`; `now`; `found.NAME` (what
//! `find` looked up); in `restore` only, `shown.FIELD`. Times are RFC 3339 in UTC; with `.local` in the
//! configured zone, with `.unix` as seconds.
//!
//! `note`, `until`, `available_at` and `previous.FIELD` may be absent in the best of cases, so a template
//! that uses one bare is refused when it is configured: it has to say what happens then.
//!
//! Why not a template engine: its escaping is one for the whole document, and a forgotten filter is an
//! injection. Here the place decides (the scanner knows whether it stands in a path, a query, XML text or an
//! attribute), and JSON and forms are trees whose leaves are templates: there is nothing to forget.

use super::{
    escape::{NotAllowed, Place},
    values::{Field, Scope, Value, Values},
};

/// What kind of text a template makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Escaped as a whole afterwards.
    Plain,
    /// Path and query.
    Target,
    /// A header's value.
    Header,
    /// An XML document.
    Xml,
}

/// A template that is wrong: where, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {problem}")]
pub(super) struct TemplateError {
    at: usize,
    problem: String,
}

/// Why a request could not be made of its template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RenderError {
    #[error(
        "profile `{profile}` has no `{term}` among its terms for HTTP: add it under `pbx.http` of the profile"
    )]
    NoTerm { profile: String, term: String },
    #[error("there is no value for {0}")]
    Absent(String),
    #[error("the value of {0} holds a control character, which a header cannot carry")]
    Control(String),
    #[error("the path of the request comes out with an empty or a dot segment")]
    Segment,
    #[error("no valid URL comes out of the path")]
    Url,
    #[error(
        "a state put back as it was found needs a `restore` request, or a `clear` request without profile names"
    )]
    NoRestore,
}

/// A checked template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Value { name: String, field: Field, place: Place, fallback: Option<String> },
    Section { field: Field, present: bool, inner: Vec<Self> },
}

/// A leaf of a JSON body or a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leaf {
    /// Text.
    Text(Template),
    /// One value with its type.
    Typed {
        /// As written in the template.
        name: String,
        /// Which.
        field: Field,
        /// Whether the entry is left out where there is no value.
        omit: bool,
    },
}

impl Template {
    /// Checks `source`.
    pub(super) fn parse(source: &str, kind: Kind, scope: &Scope<'_>) -> Result<Self, TemplateError> {
        let mut parser = Parser {
            chars: source.chars().collect(),
            at: 0,
            scanner: Scanner::new(kind),
            scope,
            given: None,
        };
        let pieces = parser.pieces(None)?;
        parser.scanner.end().map_err(|problem| parser.wrong(problem))?;
        Ok(Self { pieces })
    }

    /// The text for these values, each escaped for its place.
    pub(super) fn render(&self, values: &Values<'_>) -> Result<String, RenderError> {
        let mut out = String::new();
        render(&self.pieces, values, &mut out)?;
        Ok(out)
    }

    /// All fields it uses.
    pub(super) fn fields(&self) -> Vec<&Field> {
        fn collect<'a>(pieces: &'a [Piece], into: &mut Vec<&'a Field>) {
            for piece in pieces {
                match piece {
                    Piece::Literal(_) => {}
                    Piece::Value { field, .. } => into.push(field),
                    Piece::Section { field, inner, .. } => {
                        into.push(field);
                        collect(inner, into);
                    }
                }
            }
        }
        let mut fields = Vec::new();
        collect(&self.pieces, &mut fields);
        fields
    }

    /// Terms of the profile that must be there, since no fallback is written.
    pub(super) fn terms_needed(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Value { field: Field::Term(term), fallback: None, .. } => Some(term.as_str()),
            _ => None,
        })
    }
}

impl Leaf {
    /// Checks `source`, a leaf of a tree that is escaped as a whole.
    pub(super) fn parse(source: &str, scope: &Scope<'_>) -> Result<Self, TemplateError> {
        let whole = source.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let typed = whole.filter(|inner| !inner.contains(['{', '}'])).and_then(|inner| inner.split_once('|'));
        let Some((name, filter)) = typed else {
            return Ok(Self::Text(Template::parse(source, Kind::Plain, scope)?));
        };
        let field = scope.field(name).map_err(|problem| TemplateError { at: 1, problem })?;
        let omit = match filter {
            "json" => false,
            "omit" => true,
            _ => {
                let problem = format!("`|{filter}` is not known; write `|json`, `|omit` or `?TEXT`");
                return Err(TemplateError { at: 1, problem });
            }
        };
        Ok(Self::Typed { name: name.to_owned(), field, omit })
    }

    /// All fields it uses.
    pub(super) fn fields(&self) -> Vec<&Field> {
        match self {
            Self::Text(template) => template.fields(),
            Self::Typed { field, .. } => vec![field],
        }
    }
}

fn render(pieces: &[Piece], values: &Values<'_>, out: &mut String) -> Result<(), RenderError> {
    for piece in pieces {
        match piece {
            Piece::Literal(text) => out.push_str(text),
            Piece::Section { field, present, inner } => {
                if values.get(field).is_some() == *present {
                    render(inner, values, out)?;
                }
            }
            Piece::Value { name, field, place, fallback } => {
                let value = values.get(field).map(Value::into_text).or_else(|| fallback.clone());
                let value = value.ok_or_else(|| absent(name, field, values))?;
                place.escape(&value, out).map_err(|NotAllowed| RenderError::Control(format!("`{name}`")))?;
            }
        }
    }
    Ok(())
}

/// Why there is no value, in the words that help most.
fn absent(name: &str, field: &Field, values: &Values<'_>) -> RenderError {
    match (field, values.get(&Field::ProfileId)) {
        (Field::Term(term), Some(profile)) => {
            RenderError::NoTerm { profile: profile.into_text(), term: term.clone() }
        }
        (field, None) if field.is_of_profile() => RenderError::NoRestore,
        _ => RenderError::Absent(format!("`{name}`")),
    }
}

struct Parser<'a> {
    chars: Vec<char>,
    at: usize,
    scanner: Scanner,
    scope: &'a Scope<'a>,
    /// What the section around the present place makes sure of.
    given: Option<Field>,
}

impl Parser<'_> {
    fn wrong(&self, problem: impl Into<String>) -> TemplateError {
        TemplateError { at: self.at + 1, problem: problem.into() }
    }

    fn ahead(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(i, c)| self.chars.get(self.at + i) == Some(&c))
    }

    /// Everything up to the end, or up to the end of the section that `close` names.
    fn pieces(&mut self, close: Option<&str>) -> Result<Vec<Piece>, TemplateError> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        loop {
            let Some(&c) = self.chars.get(self.at) else {
                if let Some(close) = close {
                    return Err(self.wrong(format!("the section is not closed: write `{close}`")));
                }
                flush(&mut literal, &mut pieces);
                return Ok(pieces);
            };
            if let Some(close) = close
                && self.ahead(close)
            {
                self.at += close.len();
                flush(&mut literal, &mut pieces);
                return Ok(pieces);
            }
            match c {
                '{' | '}' if self.chars.get(self.at + 1) == Some(&c) => {
                    self.literal(c, &mut literal)?;
                    self.at += 2;
                }
                '{' => {
                    flush(&mut literal, &mut pieces);
                    pieces.push(self.placeholder(close.is_some())?);
                }
                '}' => return Err(self.wrong("a lone `}`; write `}}` for a brace")),
                _ => {
                    self.literal(c, &mut literal)?;
                    self.at += 1;
                }
            }
        }
    }

    fn literal(&mut self, c: char, literal: &mut String) -> Result<(), TemplateError> {
        self.scanner.feed(c).map_err(|problem| self.wrong(problem))?;
        literal.push(c);
        Ok(())
    }

    fn placeholder(&mut self, nested: bool) -> Result<Piece, TemplateError> {
        let length = self.chars[self.at..].iter().position(|c| *c == '}');
        let Some(length) = length else {
            return Err(self.wrong("the placeholder is not closed; write `{{` for a brace"));
        };
        let inner: String = self.chars[self.at + 1..self.at + length].iter().collect();
        match inner.chars().next() {
            Some(mark @ ('?' | '!')) => {
                if nested {
                    return Err(self.wrong("a section cannot stand within a section"));
                }
                self.section(&inner[1..], mark == '?', length)
            }
            Some('/') => Err(self.wrong(format!("`{{{inner}}}` closes nothing that is open here"))),
            _ => self.value(&inner, length),
        }
    }

    fn section(&mut self, name: &str, present: bool, length: usize) -> Result<Piece, TemplateError> {
        let field = self.scope.field(name).map_err(|problem| self.wrong(problem))?;
        self.at += length + 1;
        let before = self.scanner;
        self.given = present.then(|| field.clone());
        let inner = self.pieces(Some(if present { "{/?}" } else { "{/!}" }))?;
        self.given = None;
        if self.scanner != before {
            return Err(
                self.wrong("a section must end in the place in which it began (tag, attribute, path, query)")
            );
        }
        Ok(Piece::Section { field, present, inner })
    }

    fn value(&mut self, inner: &str, length: usize) -> Result<Piece, TemplateError> {
        let (name, fallback) = match inner.split_once('?') {
            Some((name, fallback)) => (name, Some(fallback.to_owned())),
            None => (inner, None),
        };
        if let Some((name, filter)) = name.split_once('|') {
            let advice = format!("`{{{name}|{filter}}}` may only be a whole JSON leaf or form value");
            return Err(self.wrong(format!("{advice}; write `{{{name}?TEXT}}` here")));
        }
        let field = self.scope.field(name).map_err(|problem| self.wrong(problem))?;
        if fallback.is_none()
            && field.may_be_absent()
            && !self.given.as_ref().is_some_and(|given| given.same_source(&field))
        {
            let advice =
                format!("write `{{{name}?TEXT}}`, `{{{name}?}}` or put it into `{{?{name}}}…{{/?}}`");
            return Err(self.wrong(format!("`{name}` may be absent: {advice}")));
        }
        let place = self.scanner.place().map_err(|problem| self.wrong(problem))?;
        if let Some(fallback) = &fallback {
            place
                .escape(fallback, &mut String::new())
                .map_err(|e| self.wrong(format!("the text after `?` {e}")))?;
        }
        self.scanner.value();
        self.at += length + 1;
        Ok(Piece::Value { name: name.to_owned(), field, place, fallback })
    }
}

fn flush(literal: &mut String, pieces: &mut Vec<Piece>) {
    if !literal.is_empty() {
        pieces.push(Piece::Literal(std::mem::take(literal)));
    }
}

/// Knows in which place of the document the parser stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scanner {
    Plain,
    Header,
    Path {
        fresh: bool,
    },
    Query,
    XmlText,
    /// Just after `<`.
    XmlOpen,
    XmlTag,
    XmlAttribute(char),
    /// Within `<!…>` or `<?…>`.
    XmlOther,
}

impl Scanner {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Plain => Self::Plain,
            Kind::Header => Self::Header,
            Kind::Target => Self::Path { fresh: true },
            Kind::Xml => Self::XmlText,
        }
    }

    fn feed(&mut self, c: char) -> Result<(), &'static str> {
        *self = match (*self, c) {
            (Self::Header, c) if c.is_control() => return Err("a header cannot carry a control character"),
            (Self::Path { fresh: true }, c) if c != '/' => return Err("a path begins with `/`"),
            (Self::Path { .. } | Self::Query, '#') => {
                return Err("a request has no fragment; write `%23` for `#`");
            }
            (Self::Path { .. } | Self::Query, c) if c == '\\' || c.is_control() || c.is_whitespace() => {
                return Err("neither white space nor `\\` may stand in a URL; write `%20` for a space");
            }
            (Self::Path { .. }, '?') => Self::Query,
            (Self::Path { .. }, _) => Self::Path { fresh: false },
            (Self::XmlText, '<') => Self::XmlOpen,
            (Self::XmlOpen, '!' | '?') => Self::XmlOther,
            (Self::XmlOpen | Self::XmlTag, '>') | (Self::XmlOther, '>') => Self::XmlText,
            (Self::XmlOpen, _) => Self::XmlTag,
            (Self::XmlTag, '"' | '\'') => Self::XmlAttribute(c),
            (Self::XmlAttribute(quote), c) if c == quote => Self::XmlTag,
            (same, _) => same,
        };
        Ok(())
    }

    fn place(self) -> Result<Place, &'static str> {
        match self {
            Self::Plain => Ok(Place::Plain),
            Self::Header => Ok(Place::Header),
            Self::Path { fresh: false } => Ok(Place::PathSegment),
            Self::Path { fresh: true } => Err("a path begins with `/`: the host cannot be a placeholder"),
            Self::Query => Ok(Place::Query),
            Self::XmlText => Ok(Place::XmlText),
            Self::XmlAttribute(_) => Ok(Place::XmlAttribute),
            Self::XmlOpen | Self::XmlTag => {
                Err("in XML a placeholder may stand in text or within a quoted attribute, not in a tag")
            }
            Self::XmlOther => {
                Err("a placeholder may not stand in a comment, a CDATA section or a declaration")
            }
        }
    }

    /// A value has been put here.
    fn value(&mut self) {
        if let Self::Path { fresh } = self {
            *fresh = false;
        }
    }

    fn end(self) -> Result<(), &'static str> {
        match self {
            Self::XmlOpen | Self::XmlTag | Self::XmlAttribute(_) | Self::XmlOther => {
                Err("the XML ends within a tag")
            }
            Self::Path { fresh: true } => Err("a path begins with `/`"),
            _ => Ok(()),
        }
    }
}
