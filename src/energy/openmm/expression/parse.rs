//! From the text of an expression to nodes of a graph.
//!
//! The language is that of OpenMM (its manual, "Writing Custom Expressions"): numbers, names, + − * / ^, functions, and
//! after semicolons definitions that earlier parts of the text may use. A power binds to the right and before a sign.

use super::graph::{Binary, Function, Graph, Node};
use super::scope::{Measure, Scope, index_of_point};
use std::collections::HashMap;

/// The longest text of an expression in bytes.
const LONGEST: usize = 100_000;
/// The deepest nesting of parentheses, signs and powers.
const DEEPEST: usize = 200;
/// Characters of the text that an error repeats on either side of the place that it points at.
const CONTEXT: usize = 24;

/// What is wrong with an expression.
#[derive(Debug, PartialEq)]
pub(in super::super) struct ExpressionError {
    /// Where in the text, in bytes.
    at: usize,
    what: String,
}

impl ExpressionError {
    fn new(at: usize, what: impl Into<String>) -> Self {
        Self { at, what: what.into() }
    }

    /// A sentence that points at the character.
    pub fn describe(&self, text: &str) -> String {
        let at = (0..=self.at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        let (before, after) = text.split_at(at);
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        let mut left: Vec<char> = before.chars().rev().take(CONTEXT).map(clean).collect();
        left.reverse();
        let left: String = left.into_iter().collect();
        let right: String = after.chars().take(CONTEXT).map(clean).collect();
        let cut = |there: bool| if there { "…" } else { "" };
        let (earlier, later) = (before.chars().count(), after.chars().count());
        format!(
            "at character {} of the expression, before the mark ▸ in \"{}{left}▸{right}{}\": {}",
            earlier + 1,
            cut(earlier > CONTEXT),
            cut(later > CONTEXT),
            self.what
        )
    }
}

/// Reads an expression and its definitions.
pub(in super::super) fn parse(text: &str, scope: &mut Scope, graph: &mut Graph) -> Result<Node, ExpressionError> {
    if text.len() > LONGEST {
        let what = format!("it has {} bytes; expressions may have {LONGEST}", text.len());
        return Err(ExpressionError::new(0, what));
    }
    let mut starts = vec![0];
    starts.extend(text.match_indices(';').map(|(i, _)| i + 1));
    let mut definitions = HashMap::new();
    // Definitions may use those that follow them.
    for (k, &start) in starts.iter().enumerate().rev() {
        let end = starts.get(k + 1).map_or(text.len(), |next| next - 1);
        let part = text.get(start..end).unwrap_or_default();
        if k == 0 {
            return Parser::new(part, start, scope, graph, &definitions)?.whole();
        }
        if part.trim().is_empty() {
            continue;
        }
        let Some((name, value)) = part.split_once('=') else {
            let what = "what follows a semicolon must be a definition, as in name=expression";
            return Err(ExpressionError::new(start, what));
        };
        if name.trim().is_empty() {
            return Err(ExpressionError::new(start, "the definition has no name"));
        }
        let node = Parser::new(value, start + name.len() + 1, scope, graph, &definitions)?.whole()?;
        definitions.insert(name.trim().to_string(), node);
    }
    Err(ExpressionError::new(0, "it is empty"))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    Number(f64),
    Name(&'a str),
    Sign(char),
    End,
}

struct Parser<'a, 'b> {
    /// With where each is in the whole text; the last is the end.
    tokens: Vec<(Token<'a>, usize)>,
    next: usize,
    depth: usize,
    scope: &'b mut Scope,
    graph: &'b mut Graph,
    definitions: &'b HashMap<String, Node>,
}

impl<'a, 'b> Parser<'a, 'b> {
    fn new(
        text: &'a str,
        offset: usize,
        scope: &'b mut Scope,
        graph: &'b mut Graph,
        definitions: &'b HashMap<String, Node>,
    ) -> Result<Self, ExpressionError> {
        Ok(Self { tokens: tokens(text, offset)?, next: 0, depth: 0, scope, graph, definitions })
    }

    fn peek(&self) -> (Token<'a>, usize) {
        self.tokens.get(self.next).or(self.tokens.last()).copied().unwrap_or((Token::End, 0))
    }

    fn take(&mut self) -> (Token<'a>, usize) {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn expect(&mut self, sign: char) -> Result<(), ExpressionError> {
        match self.take() {
            (Token::Sign(actual), _) if actual == sign => Ok(()),
            (_, at) => Err(ExpressionError::new(at, format!("'{sign}' is expected here"))),
        }
    }

    fn whole(mut self) -> Result<Node, ExpressionError> {
        let node = self.expression(0)?;
        let (token, at) = self.peek();
        if token != Token::End {
            return Err(ExpressionError::new(at, "an operator or the end is expected here"));
        }
        if self.graph.is_overflown() {
            return Err(ExpressionError::new(at, "it is too long to be evaluated"));
        }
        Ok(node)
    }

    /// An expression whose operators bind at least as strongly as `least`.
    fn expression(&mut self, least: u8) -> Result<Node, ExpressionError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let what = format!("it is nested more than {DEEPEST} deep; name parts of it after a semicolon");
            return Err(ExpressionError::new(self.peek().1, what));
        }
        let mut left = self.operand()?;
        while let (Token::Sign(sign), _) = self.peek() {
            // From the weakest: sums, products, a sign in front, powers. Powers bind to the right.
            let (strength, right) = match sign {
                '+' | '-' => (0, 1),
                '*' | '/' => (1, 2),
                '^' => (3, 3),
                _ => break,
            };
            if strength < least {
                break;
            }
            self.next += 1;
            let operand = self.expression(right)?;
            left = match sign {
                '+' => self.graph.add(left, operand),
                '-' => self.graph.subtract(left, operand),
                '*' => self.graph.multiply(left, operand),
                '/' => self.graph.divide(left, operand),
                _ => self.graph.power(left, operand),
            };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operand(&mut self) -> Result<Node, ExpressionError> {
        match self.take() {
            (Token::Number(x), _) => Ok(self.graph.constant(x)),
            (Token::Sign('-'), _) => {
                let node = self.expression(2)?;
                Ok(self.graph.negate(node))
            }
            (Token::Sign('('), _) => {
                let node = self.expression(0)?;
                self.expect(')')?;
                Ok(node)
            }
            (Token::Name(name), at) if self.peek().0 == Token::Sign('(') => {
                self.next += 1;
                self.call(name, at)
            }
            (Token::Name(name), at) => self.name(name, at),
            (_, at) => Err(ExpressionError::new(at, "a number, a name, a function or '(' is expected here")),
        }
    }

    fn name(&mut self, name: &str, at: usize) -> Result<Node, ExpressionError> {
        if let Some(&node) = self.definitions.get(name).or_else(|| self.scope.names.get(name)) {
            return Ok(node);
        }
        if let Some(measure) = self.scope.coordinate(name) {
            return Ok(self.scope.measure(self.graph, measure));
        }
        let mut known: Vec<&str> = self.scope.names.keys().map(String::as_str).collect();
        known.sort_unstable();
        known.truncate(12);
        let what = format!(
            "'{}' is not defined; known here are {}{}",
            short(name),
            known.join(", "),
            if self.scope.points > 0 { ", and x1, y1, z1, x2, …" } else { "" }
        );
        Err(ExpressionError::new(at, what))
    }

    /// A function whose opening parenthesis has been taken.
    fn call(&mut self, name: &str, at: usize) -> Result<Node, ExpressionError> {
        if self.scope.points > 0
            && let Some(count) = match name {
                "distance" => Some(2),
                "angle" => Some(3),
                "dihedral" => Some(4),
                _ => None,
            }
        {
            return self.measured(name, count, at);
        }
        let is_point_function = self.scope.points > 0 && POINT_FUNCTIONS.iter().any(|(known, _)| *known == name);
        if !(self.scope.tables.contains_key(name) || FUNCTIONS.contains(&name) || is_point_function) {
            return Err(unknown_function(name, at));
        }
        let mut arguments = Vec::new();
        if self.peek().0 == Token::Sign(')') {
            self.next += 1;
        } else {
            loop {
                arguments.push(self.expression(0)?);
                match self.take() {
                    (Token::Sign(','), _) => {}
                    (Token::Sign(')'), _) => break,
                    (_, at) => return Err(ExpressionError::new(at, "',' or ')' is expected here")),
                }
            }
        }
        let wrong = |needed: usize| {
            let what = format!("{}() has {needed} arguments, not {}", short(name), arguments.len());
            ExpressionError::new(at, what)
        };
        if let Some(&table) = self.scope.tables.get(name) {
            let needed = usize::from(table.arguments);
            return match (needed, arguments.as_slice()) {
                (1, &[a]) => Ok(self.graph.table(table, [a; 3], None)),
                (2, &[a, b]) => Ok(self.graph.table(table, [a, b, b], None)),
                (3, &[a, b, c]) => Ok(self.graph.table(table, [a, b, c], None)),
                _ => Err(wrong(needed)),
            };
        }
        let made = function(self.graph, name, &arguments);
        made.or_else(|| point_function(self.graph, name, &arguments)).unwrap_or(Err(0)).map_err(wrong)
    }

    /// distance(p1, p2), angle(p1, p2, p3) or dihedral(p1, p2, p3, p4).
    fn measured(&mut self, name: &str, count: usize, at: usize) -> Result<Node, ExpressionError> {
        let mut points = [0; 4];
        for (k, place) in points.iter_mut().take(count).enumerate() {
            if k > 0 {
                self.expect(',')?;
            }
            let (token, at) = self.take();
            let point = match token {
                Token::Name(name) => name.strip_prefix('p').and_then(|n| index_of_point(n, self.scope.points)),
                _ => None,
            };
            *place = point.ok_or_else(|| {
                ExpressionError::new(at, format!("{name}() takes points, from p1 to p{}", self.scope.points))
            })?;
        }
        self.expect(')')?;
        let [a, b, c, d] = points;
        if (0..count).any(|i| points[..i].contains(&points[i])) {
            return Err(ExpressionError::new(at, format!("{name}() has the same point twice")));
        }
        let measure = match count {
            2 => Measure::Distance([a, b]),
            3 => Measure::Angle([a, b, c]),
            _ => Measure::Dihedral([a, b, c, d]),
        };
        Ok(self.scope.measure(self.graph, measure))
    }
}

fn short(name: &str) -> String {
    name.chars().take(40).collect()
}

fn unknown_function(name: &str, at: usize) -> ExpressionError {
    let what = format!(
        "the function '{}' is not known; those of OpenMM's expression language are, and a force's own tables",
        short(name)
    );
    ExpressionError::new(at, what)
}

/// The functions of numbers.
const FUNCTIONS: [&str; 29] = [
    "sqrt", "exp", "log", "sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "atan2", "sinh", "cosh",
    "tanh", "erf", "erfc", "step", "delta", "square", "cube", "recip", "min", "max", "abs", "floor", "ceil", "select",
];

/// The functions of the coordinates of points, and of how many points.
const POINT_FUNCTIONS: [(&str, usize); 3] = [("pointdistance", 2), ("pointangle", 3), ("pointdihedral", 4)];

/// A function of numbers; the error is the number of arguments that it has.
fn function(graph: &mut Graph, name: &str, arguments: &[Node]) -> Option<Result<Node, usize>> {
    let one = match name {
        "sqrt" => Function::Sqrt,
        "exp" => Function::Exp,
        "log" => Function::Log,
        "sin" | "csc" => Function::Sin,
        "cos" | "sec" => Function::Cos,
        "tan" | "cot" => Function::Tan,
        "asin" => Function::Asin,
        "acos" => Function::Acos,
        "atan" => Function::Atan,
        "sinh" => Function::Sinh,
        "cosh" => Function::Cosh,
        "tanh" => Function::Tanh,
        "erf" => Function::Erf,
        "erfc" => Function::Erfc,
        "step" => Function::Step,
        "delta" => Function::Delta,
        "abs" => Function::Abs,
        "floor" => Function::Floor,
        "ceil" => Function::Ceil,
        "recip" => Function::Reciprocal,
        "square" | "cube" => {
            let power = if name == "square" { 2 } else { 3 };
            return Some(match arguments {
                &[a] => Ok(graph.integer_power(a, power)),
                _ => Err(1),
            });
        }
        "min" | "max" | "atan2" => {
            let function = match name {
                "min" => Binary::Min,
                "max" => Binary::Max,
                _ => Binary::Atan2,
            };
            return Some(match arguments {
                &[a, b] => Ok(graph.binary(function, a, b)),
                _ => Err(2),
            });
        }
        "select" => {
            return Some(match arguments {
                &[condition, yes, no] => Ok(graph.select(condition, yes, no)),
                _ => Err(3),
            });
        }
        _ => return None,
    };
    let &[a] = arguments else { return Some(Err(1)) };
    let node = graph.unary(one, a);
    Some(Ok(if matches!(name, "sec" | "csc" | "cot") { graph.unary(Function::Reciprocal, node) } else { node }))
}

/// pointdistance, pointangle and pointdihedral, whose arguments are the coordinates of points.
fn point_function(graph: &mut Graph, name: &str, arguments: &[Node]) -> Option<Result<Node, usize>> {
    let points: Vec<[Node; 3]> = arguments.as_chunks::<3>().0.to_vec();
    let &(_, needed) = POINT_FUNCTIONS.iter().find(|(known, _)| *known == name)?;
    if arguments.len() != 3 * needed {
        return Some(Err(3 * needed));
    }
    let mut difference = |a: usize, b: usize| [0, 1, 2].map(|k| graph.subtract(points[b][k], points[a][k]));
    Some(Ok(match needed {
        2 => {
            let d = difference(0, 1);
            length(graph, d)
        }
        3 => {
            let (u, v) = (difference(1, 0), difference(1, 2));
            let w = cross(graph, u, v);
            let (sine, cosine) = (length(graph, w), dot(graph, u, v));
            graph.binary(Binary::Atan2, sine, cosine)
        }
        _ => {
            let (u, v, w) = (difference(0, 1), difference(1, 2), difference(2, 3));
            let (m, n) = (cross(graph, u, v), cross(graph, v, w));
            let (axis, along) = (length(graph, v), dot(graph, u, n));
            let (sine, cosine) = (graph.multiply(axis, along), dot(graph, m, n));
            graph.binary(Binary::Atan2, sine, cosine)
        }
    }))
}

fn dot(graph: &mut Graph, a: [Node; 3], b: [Node; 3]) -> Node {
    let [x, y, z] = [0, 1, 2].map(|k| graph.multiply(a[k], b[k]));
    let xy = graph.add(x, y);
    graph.add(xy, z)
}

fn length(graph: &mut Graph, a: [Node; 3]) -> Node {
    let square = dot(graph, a, a);
    graph.sqrt(square)
}

fn cross(graph: &mut Graph, a: [Node; 3], b: [Node; 3]) -> [Node; 3] {
    [(1, 2), (2, 0), (0, 1)].map(|(i, j)| {
        let (left, right) = (graph.multiply(a[i], b[j]), graph.multiply(a[j], b[i]));
        graph.subtract(left, right)
    })
}

/// The tokens of a text that begins at `offset` of the whole, and its end.
fn tokens(text: &str, offset: usize) -> Result<Vec<(Token<'_>, usize)>, ExpressionError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let at = offset + text.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            tokens.push((Token::End, at));
            return Ok(tokens);
        };
        let length = match first {
            '+' | '-' | '*' | '/' | '^' | '(' | ')' | ',' => {
                tokens.push((Token::Sign(first), at));
                1
            }
            '0'..='9' | '.' => {
                let length = number_length(rest);
                let digits = rest.get(..length).unwrap_or_default();
                let number = digits.parse().ok().filter(|x: &f64| x.is_finite());
                let number = number
                    .ok_or_else(|| ExpressionError::new(at, format!("'{}' is not a finite number", short(digits))))?;
                tokens.push((Token::Number(number), at));
                length
            }
            _ if first.is_alphabetic() || first == '_' => {
                // OpenMM ends a name where an operator, a bracket, a comma or a blank is; so a' is one.
                let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '\'');
                let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                tokens.push((Token::Name(rest.get(..length).unwrap_or_default()), at));
                length
            }
            _ => return Err(ExpressionError::new(at, format!("'{first}' has no meaning here"))),
        };
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// The length of digits with a point and an exponent, if what follows them is one.
fn number_length(text: &str) -> usize {
    let digits = |text: &str| text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let mantissa = digits(text);
    let rest = text.get(mantissa..).unwrap_or_default();
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let power = unsigned.bytes().take_while(u8::is_ascii_digit).count();
        if power > 0 {
            return mantissa + rest.len() - unsigned.len() + power;
        }
    }
    mantissa
}
