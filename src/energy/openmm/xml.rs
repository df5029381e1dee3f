//! Reading XML that may be wrong, or hostile: limits before parsing, and errors that say where and what.

use crate::energy::potential::EnergyError;
use roxmltree::{Document, Node, ParsingOptions};

/// The longest System XML that is read, in bytes.
pub const MAX_XML_BYTES: usize = 64 << 20;
/// The most atoms of a system.
pub const MAX_ATOMS: usize = 100_000;
/// The most atoms of a system with a force between all pairs of them.
pub const MAX_ALL_PAIRS_ATOMS: usize = 5_000;

const MAX_TAGS: usize = 2_000_000;
const MAX_NODES: u32 = 4_000_000;
const MAX_ATTRIBUTES: usize = 5_000_000;
const MAX_ATTRIBUTES_OF_ONE: usize = 160;
/// The sum over long expressions of the squares of their lengths: what differentiating them costs grows like that.
const MAX_EXPRESSION_WORK: u64 = 30_000_000_000;
const LONG_EXPRESSION: usize = 1000;
/// Of all expressions together: what is computed for each takes memory, whether it is one long expression or many.
const MAX_EXPRESSION_BYTES: usize = 4 << 20;
const MAX_EXPRESSIONS: usize = 4096;
/// Characters of the input that an error repeats.
const QUOTED: usize = 120;

/// Parses the text of an OpenMM System. What the parser needs is linear in the text only within the limits checked here:
/// it reserves memory by the number of tags and attributes, and compares attributes and namespaces of an element with
/// each other.
pub(super) fn parse(text: &str) -> Result<Document<'_>, EnergyError> {
    let refuse = |what: String| Err(EnergyError::Definition(format!("the system XML {what}")));
    if text.len() > MAX_XML_BYTES {
        return refuse(format!("has {} bytes; at most {MAX_XML_BYTES} are read", text.len()));
    }
    let (mut tags, mut attributes, mut of_this) = (0, 0, 0);
    // Values have equality signs too. No value has a `<`: so whatever comes before a tag, its quotes are told rightly.
    let mut quote = None;
    for byte in text.bytes() {
        match byte {
            b'<' => (tags, of_this, quote) = (tags + 1, 0, None),
            b'"' | b'\'' if quote.is_none() => quote = Some(byte),
            _ if quote == Some(byte) => quote = None,
            b'=' if quote.is_none() => (attributes, of_this) = (attributes + 1, of_this + 1),
            _ => continue,
        }
        if tags > MAX_TAGS || attributes > MAX_ATTRIBUTES || of_this > MAX_ATTRIBUTES_OF_ONE {
            return refuse(format!(
                "has more than {MAX_TAGS} tags, {MAX_ATTRIBUTES} attributes, or {MAX_ATTRIBUTES_OF_ONE} attributes of \
                 one tag; OpenMM writes no such file for a system within the limits"
            ));
        }
    }
    if text.contains("xmlns") {
        return refuse("declares a namespace (xmlns); pass the text that OpenMM's XmlSerializer writes".to_string());
    }
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|e| {
        EnergyError::Definition(format!(
            "the system XML is not well-formed: {}; pass the whole text that OpenMM's XmlSerializer writes",
            quoted(&e.to_string())
        ))
    })?;
    let expressions = document.descendants().flat_map(|node| node.attributes());
    let lengths = expressions.filter(|a| matches!(a.name(), "energy" | "expression")).map(|a| a.value().len());
    let (count, all) = lengths.clone().fold((0, 0), |(count, all), n| (count + 1, all + n));
    if count > MAX_EXPRESSIONS || all > MAX_EXPRESSION_BYTES {
        return refuse(format!(
            "has {count} expressions of {all} bytes together; {MAX_EXPRESSIONS} and {MAX_EXPRESSION_BYTES} may be, since \
             every thread needs memory for what they are made of"
        ));
    }
    let work = lengths.filter(|&n| n > LONG_EXPRESSION).fold(0u64, |sum, n| sum.saturating_add((n * n) as u64));
    if work > MAX_EXPRESSION_WORK {
        let most = MAX_EXPRESSION_WORK.isqrt();
        return refuse(format!(
            "has expressions that are longer, together, than one of {most} characters would be; split them"
        ));
    }
    Ok(document)
}

/// That a force between all pairs has few enough of them.
pub(super) fn check_all_pairs(force: &Element, atoms: usize) -> Result<(), EnergyError> {
    if atoms <= MAX_ALL_PAIRS_ATOMS {
        return Ok(());
    }
    Err(force.unsupported(format!(
        "it acts between all pairs of atoms, which is limited to systems of {MAX_ALL_PAIRS_ATOMS} atoms, and this one \
         has {atoms}"
    )))
}

/// The beginning of a text, on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut beginning: String = text.chars().take(QUOTED).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if beginning.len() < text.len() {
        beginning.push('…');
    }
    beginning
}

/// An element of the document. Every error of its methods names the element and its line.
#[derive(Clone, Copy)]
pub(super) struct Element<'a, 'input>(Node<'a, 'input>);

impl<'a, 'input> Element<'a, 'input> {
    pub fn root(document: &'a Document<'input>) -> Self {
        Self(document.root_element())
    }

    pub fn name(&self) -> &'a str {
        self.0.tag_name().name()
    }

    /// An error about this element.
    pub fn fault(&self, what: impl std::fmt::Display) -> EnergyError {
        let line = self.0.document().text_pos_at(self.0.range().start).row;
        EnergyError::Definition(format!("<{}> on line {line} of the system XML: {what}", quoted(self.name())))
    }

    /// The error that this element, a force, is not supported.
    pub fn unsupported(&self, reason: impl Into<String>) -> EnergyError {
        let kind = self.attribute("type").unwrap_or_default();
        let force = match self.attribute("name") {
            Some(name) if name != kind => format!("{} ({})", quoted(kind), quoted(name)),
            _ => quoted(kind),
        };
        EnergyError::Unsupported { force, reason: reason.into() }
    }

    pub fn attribute(&self, name: &str) -> Option<&'a str> {
        self.0.attribute(name)
    }

    pub fn required(&self, name: &str) -> Result<&'a str, EnergyError> {
        self.attribute(name).ok_or_else(|| self.fault(format!("attribute {name} is missing")))
    }

    /// A finite number.
    pub fn number(&self, name: &str) -> Result<f64, EnergyError> {
        let text = self.required(name)?;
        text.trim()
            .parse()
            .ok()
            .filter(|x: &f64| x.is_finite())
            .ok_or_else(|| self.fault(format!("attribute {name} is \"{}\"; it must be a finite number", quoted(text))))
    }

    /// A finite number that is not negative.
    pub fn non_negative(&self, name: &str) -> Result<f64, EnergyError> {
        let x = self.number(name)?;
        if x < 0.0 {
            return Err(self.fault(format!("attribute {name} is {x}; it must not be negative")));
        }
        Ok(x)
    }

    pub fn integer(&self, name: &str) -> Result<i64, EnergyError> {
        let text = self.required(name)?;
        text.trim()
            .parse()
            .map_err(|_| self.fault(format!("attribute {name} is \"{}\"; it must be an integer", quoted(text))))
    }

    /// The indices of different particles, all below `atoms`.
    pub fn particles<const N: usize>(&self, names: [&str; N], atoms: usize) -> Result<[u32; N], EnergyError> {
        let list = self.different_particles(&names, atoms)?;
        let mut particles = [0; N];
        particles.iter_mut().zip(list).for_each(|(to, from)| *to = from);
        Ok(particles)
    }

    /// The same for any number of them.
    pub fn particle_list(&self, names: &[impl AsRef<str>], atoms: usize) -> Result<Vec<u32>, EnergyError> {
        let mut particles = Vec::with_capacity(names.len());
        for name in names.iter().map(AsRef::as_ref) {
            let index = self.integer(name)?;
            let Some(particle) = u32::try_from(index).ok().filter(|&p| (p as usize) < atoms) else {
                let what = format!("attribute {name} is {index}; it must be the index of one of {atoms} particles");
                return Err(self.fault(what));
            };
            particles.push(particle);
        }
        Ok(particles)
    }

    /// The same, of which no two may be one.
    pub fn different_particles(&self, names: &[impl AsRef<str>], atoms: usize) -> Result<Vec<u32>, EnergyError> {
        let particles = self.particle_list(names, atoms)?;
        match particles.iter().enumerate().find(|(k, particle)| particles[..*k].contains(particle)) {
            None => Ok(particles),
            Some((_, twice)) => {
                Err(self.fault(format!("particle {twice} is named twice; its particles must be different")))
            }
        }
    }

    /// The only child of a name, if there is one.
    pub fn optional_child(&self, name: &str) -> Result<Option<Self>, EnergyError> {
        let mut children = self.elements().filter(|e| e.name() == name);
        let child = children.next();
        match children.next() {
            Some(second) => Err(second.fault("a second element of this name in its parent; keep one of them")),
            None => Ok(child),
        }
    }

    /// The only child of a name.
    pub fn child(&self, name: &str) -> Result<Self, EnergyError> {
        self.optional_child(name)?.ok_or_else(|| self.fault(format!("element <{name}> is missing in it")))
    }

    /// All children, which must have the name.
    pub fn children(&self, name: &'static str) -> impl Iterator<Item = Result<Self, EnergyError>> {
        self.elements().map(move |element| match element.name() {
            actual if actual == name => Ok(element),
            _ => Err(element.fault(format!("only <{name}> may be here"))),
        })
    }

    /// Whether a child of the name is there and has children itself.
    pub fn has_any(&self, name: &str) -> Result<bool, EnergyError> {
        Ok(self.optional_child(name)?.is_some_and(|child| child.elements().next().is_some()))
    }

    /// A force's parameters of particles, as many as the system has atoms.
    pub fn particles_of(&self, list: &str, name: &'static str, atoms: usize) -> Result<Vec<Self>, EnergyError> {
        let list = self.child(list)?;
        let particles = list.children(name).collect::<Result<Vec<_>, _>>()?;
        if particles.len() != atoms {
            let what =
                format!("{} particles; the system has {atoms}, and the force must have as many", particles.len());
            return Err(list.fault(what));
        }
        Ok(particles)
    }

    pub fn elements(&self) -> impl Iterator<Item = Self> + use<'a, 'input> {
        self.0.children().filter(Node::is_element).map(Self)
    }
}
