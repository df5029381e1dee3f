//! Recognising the expressions that OpenMM writes into a CustomGBForce, and the numbers in them.

use std::collections::BTreeMap;

/// An expression and the definitions that follow it, without white space.
#[derive(Debug)]
pub(super) struct Expression {
    main: String,
    definitions: BTreeMap<String, String>,
}

/// prefactor·(1/solute − 1/solvent) times what depends on the atoms.
pub(super) struct Polarisation {
    pub prefactor: f64,
    pub solute: f64,
    pub solvent: f64,
}

/// Definitions that name a number, whether the expression uses it or not.
const CONSTANTS: [&str; 5] = ["solventDielectric", "soluteDielectric", "kappa", "offset", "cutoff"];

/// The longest expression that is looked at, in bytes; those of OBC1 and OBC2 are far shorter.
const LONGEST: usize = 2_000;

impl Expression {
    /// Splits the text of an expression. None where it is too long to be one of those known, or defines a name twice.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let mut parts = compact.split(';').filter(|part| !part.is_empty());
        let main = parts.next()?.to_string();
        let mut definitions = BTreeMap::new();
        for part in parts {
            let (name, value) = part.split_once('=')?;
            if definitions.insert(name.to_string(), value.to_string()).is_some() {
                return None;
            }
        }
        Some(Self { main, definitions })
    }

    /// The number that a name is defined as.
    fn number(&self, name: &str) -> Option<f64> {
        match numbers(self.definitions.get(name)?, "#")?.as_slice() {
            [number] => Some(*number),
            _ => None,
        }
    }

    /// Whether this is the integral I of descreening.
    pub fn is_descreening(&self) -> bool {
        self.main == "select(step(r+sr2-or1),0.5*(1/L-1/U+0.25*(r-sr2^2/r)*(1/(U^2)-1/(L^2))+0.5*log(L/U)/r),0)"
            && self.defines(&[("U", "r+sr2"), ("L", "max(or1,D)"), ("D", "abs(r-sr2)")])
    }

    /// The coefficients α, β and γ of tanh in the Born radius, and the offset of radii.
    pub fn born_radius(&self) -> Option<([f64; 3], f64)> {
        let forms = [
            ("1/(1/or-tanh(#*psi+#*psi^3)/radius)", [Some(0), None, Some(1)]),
            ("1/(1/or-tanh(psi-#*psi^2+#*psi^3)/radius)", [None, Some(0), Some(1)]),
        ];
        let rescaling = forms.iter().find_map(|(form, places)| {
            let found = numbers(&self.main, form)?;
            let coefficient = |place: usize, without: f64| places[place].map_or(without, |i: usize| found[i]);
            Some([coefficient(0, 1.0), coefficient(1, 0.0), coefficient(2, 0.0)])
        })?;
        self.defines(&[("psi", "I*or"), ("radius", "or+offset")]).then_some(())?;
        Some((rescaling, self.number("offset")?))
    }

    /// The energy of a charge in its own field, times B/charge².
    pub fn self_energy(&self) -> Option<Polarisation> {
        let form = "-#*#*(1/soluteDielectric-1/solventDielectric)*charge^2/B";
        self.defines(&[]).then_some(())?;
        self.polarisation(-numbers(&self.main, form)?.iter().product::<f64>())
    }

    /// The energy of two charges over their product and 1/f, and what 1/f is less by where there is a cutoff.
    pub fn pair_energy(&self) -> Option<(Polarisation, f64)> {
        let forms = [
            ("-#*(1/soluteDielectric-1/solventDielectric)*charge1*charge2/f", false),
            ("-#*(1/soluteDielectric-1/solventDielectric)*charge1*charge2*(1/f-#)", true),
        ];
        self.defines(&[("f", "sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2)))")]).then_some(())?;
        let (found, shifted) = forms.iter().find_map(|(form, shifted)| Some((numbers(&self.main, form)?, *shifted)))?;
        let shift = if shifted { *found.get(1)? } else { 0.0 };
        Some((self.polarisation(-*found.first()?)?, shift))
    }

    /// The prefactor, the radius of the probe and the offset of radii in the energy of the surface area.
    pub fn surface_energy(&self) -> Option<[f64; 3]> {
        self.defines(&[("radius", "or+offset")]).then_some(())?;
        match numbers(&self.main, "#*(radius+#)^2*(radius/B)^6")?.as_slice() {
            [prefactor, probe] => Some([*prefactor, *probe, self.number("offset")?]),
            _ => None,
        }
    }

    fn polarisation(&self, prefactor: f64) -> Option<Polarisation> {
        let solute = self.number("soluteDielectric")?;
        Some(Polarisation { prefactor, solute, solvent: self.number("solventDielectric")? })
    }

    /// Whether the definitions are these, and constants besides.
    fn defines(&self, expected: &[(&str, &str)]) -> bool {
        let known = |(name, value): (&String, &String)| {
            expected.contains(&(name, value)) || (CONSTANTS.contains(&name.as_str()) && self.number(name).is_some())
        };
        self.definitions.iter().all(known) && expected.iter().all(|(name, _)| self.definitions.contains_key(*name))
    }
}

/// The numbers that stand in `text` where `form` has `#`; None where the two differ in anything else.
fn numbers(text: &str, form: &str) -> Option<Vec<f64>> {
    let mut pieces = form.split('#');
    let mut rest = text.strip_prefix(pieces.next()?)?;
    let mut numbers = Vec::new();
    for piece in pieces {
        let (number, after) = leading_number(rest)?;
        numbers.push(number);
        rest = after.strip_prefix(piece)?;
    }
    rest.is_empty().then_some(numbers)
}

/// A number without a sign at the beginning of a text, and what follows it.
fn leading_number(text: &str) -> Option<(f64, &str)> {
    let digits = |text: &str| text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let mut length = digits(text);
    if let Some(exponent) = text[length..].strip_prefix(['e', 'E']) {
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if digits(unsigned) > 0 {
            length = text.len() - unsigned.len() + digits(unsigned);
        }
    }
    let number: f64 = text[..length].parse().ok()?;
    number.is_finite().then_some((number, &text[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenMM's parameters come out of "%.16g", so that any notation of a number may stand there.
    #[test]
    fn numbers_are_taken_from_where_the_form_has_them() {
        assert_eq!(numbers("2.5e-05*x", "#*x"), Some(vec![2.5e-5]));
        assert_eq!(numbers(".5*x+1E3", "#*x+#"), Some(vec![0.5, 1000.0]));
        assert_eq!(numbers("2*exp", "#*exp"), Some(vec![2.0]));
        for (text, form) in [("x*x", "#*x"), ("1..2*x", "#*x"), ("2*x+", "#*x"), ("", "#"), ("1e999", "#"), ("2e", "#")]
        {
            assert_eq!(numbers(text, form), None, "{text}");
        }
    }
}
