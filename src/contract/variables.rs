//! Collective variables.

use super::v1::{self, ArrayEncoding, DataType, collective_variable as proto};
use super::{FieldError, array, numbers};
use crate::thermo::{CollectiveVariable, DEEPEST, DEFAULT_COORDINATION_POWER};

const FIELD: &str = "variable";

/// Characters of a name that an error repeats.
const SHOWN: usize = 64;

/// The collective variable of a message. Whether it fits a system is not checked here.
pub fn collective_variable(message: Option<&v1::CollectiveVariable>) -> Result<CollectiveVariable, FieldError> {
    within(message, 1)
}

/// `depth` counts the expressions that the variable is in, and itself.
fn within(message: Option<&v1::CollectiveVariable>, depth: usize) -> Result<CollectiveVariable, FieldError> {
    use proto::Variable;
    let Some(variable) = message.and_then(|m| m.variable.as_ref()) else {
        return Err(FieldError::invalid(FIELD, "it is missing"));
    };
    Ok(match variable {
        Variable::Coordinate(v) => CollectiveVariable::Coordinate { index: index(v.index)? },
        Variable::Linear(v) => CollectiveVariable::Linear { coefficients: v.coefficients.clone() },
        Variable::Distance(v) => CollectiveVariable::Distance { atoms: [index(v.i)?, index(v.j)?] },
        Variable::Angle(v) => CollectiveVariable::Angle { atoms: [index(v.i)?, index(v.j)?, index(v.k)?] },
        Variable::Dihedral(v) => {
            CollectiveVariable::Dihedral { atoms: [index(v.i)?, index(v.j)?, index(v.k)?, index(v.l)?] }
        }
        Variable::RadiusOfGyration(v) => CollectiveVariable::RadiusOfGyration { atoms: indices(&v.atoms)? },
        Variable::Rmsd(v) => rmsd(v)?,
        Variable::CoordinationNumber(v) => CollectiveVariable::Coordination {
            groups: [indices(&v.group_a)?, indices(&v.group_b)?],
            r0: v.r0,
            power: match u32::try_from(v.n) {
                Ok(0) => DEFAULT_COORDINATION_POWER,
                Ok(n) => n,
                Err(_) => {
                    let field = format!("{FIELD}.coordination_number.n");
                    return Err(FieldError::invalid(field, format!("it is {}; it must not be negative", v.n)));
                }
            },
        },
        Variable::Expression(v) => expression(v, depth)?,
    })
}

fn index(i: i64) -> Result<usize, FieldError> {
    usize::try_from(i).map_err(|_| FieldError::invalid(FIELD, format!("{i} is negative")))
}

fn indices(list: &[i64]) -> Result<Vec<usize>, FieldError> {
    list.iter().map(|&i| index(i)).collect()
}

fn rmsd(message: &proto::Rmsd) -> Result<CollectiveVariable, FieldError> {
    let field = format!("{FIELD}.rmsd.reference");
    let Some(reference) = &message.reference else { return Err(FieldError::invalid(field, "it is missing")) };
    let (reference, shape) = numbers(&field, reference)?;
    if !matches!(shape[..], [_, 3]) {
        return Err(FieldError::invalid(field, format!("its shape is {shape:?}; it must be (atoms, 3)")));
    }
    Ok(CollectiveVariable::Rmsd { atoms: indices(&message.atoms)?, reference })
}

fn expression(message: &proto::Expression, depth: usize) -> Result<CollectiveVariable, FieldError> {
    let field = format!("{FIELD}.expression");
    if depth > DEEPEST {
        return Err(FieldError::invalid(field, format!("expressions are nested more than {DEEPEST} deep")));
    }
    let period = match message.period {
        0.0 => None,
        period if period > 0.0 && period.is_finite() => Some(period),
        period => {
            let reason = format!("it is {period}; it must be positive and finite, or 0 if the value is not periodic");
            return Err(FieldError::invalid(format!("{field}.period"), reason));
        }
    };
    let inner = message.variables.iter().map(|(name, variable)| {
        let shown: String = name.chars().take(SHOWN).collect();
        let variable = within(Some(variable), depth + 1);
        Ok((name.clone(), variable.map_err(|error| error.within(&format!("{field}.variables[{shown}]")))?))
    });
    let variables = inner.collect::<Result<_, FieldError>>()?;
    Ok(CollectiveVariable::Expression { expression: message.expression.trim().to_string(), variables, period })
}

/// A variable to send.
pub fn variable_message(variable: &CollectiveVariable) -> v1::CollectiveVariable {
    use proto::Variable;
    let list = |atoms: &[usize]| atoms.iter().map(|&atom| atom as i64).collect();
    let variable = match variable {
        CollectiveVariable::Coordinate { index } => Variable::Coordinate(proto::Coordinate { index: *index as i64 }),
        CollectiveVariable::Linear { coefficients } => {
            Variable::Linear(proto::Linear { coefficients: coefficients.clone() })
        }
        CollectiveVariable::Distance { atoms } => {
            let [i, j] = atoms.map(|a| a as i64);
            Variable::Distance(proto::Distance { i, j })
        }
        CollectiveVariable::Angle { atoms } => {
            let [i, j, k] = atoms.map(|a| a as i64);
            Variable::Angle(proto::Angle { i, j, k })
        }
        CollectiveVariable::Dihedral { atoms } => {
            let [i, j, k, l] = atoms.map(|a| a as i64);
            Variable::Dihedral(proto::Dihedral { i, j, k, l })
        }
        CollectiveVariable::RadiusOfGyration { atoms } => {
            Variable::RadiusOfGyration(proto::RadiusOfGyration { atoms: list(atoms) })
        }
        CollectiveVariable::Rmsd { atoms, reference } => {
            let shape = [reference.len() / 3, 3];
            let reference = array(reference.clone(), &shape, DataType::Float64, ArrayEncoding::Bytes);
            Variable::Rmsd(proto::Rmsd { atoms: list(atoms), reference: Some(reference) })
        }
        CollectiveVariable::Coordination { groups: [a, b], r0, power } => {
            let n = i32::try_from(*power).unwrap_or(i32::MAX);
            Variable::CoordinationNumber(proto::CoordinationNumber { group_a: list(a), group_b: list(b), r0: *r0, n })
        }
        CollectiveVariable::Expression { expression, variables, period } => Variable::Expression(proto::Expression {
            expression: expression.clone(),
            variables: variables.iter().map(|(name, variable)| (name.clone(), variable_message(variable))).collect(),
            period: period.unwrap_or(0.0),
        }),
    };
    v1::CollectiveVariable { variable: Some(variable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_come_back_from_messages() {
        for text in [
            "coordinate(4)",
            "linear(0.7,-0.7)",
            "distance(1,3)",
            "angle(2,0,3)",
            "dihedral(3,0,2,1)",
            "radius_of_gyration()",
            "radius_of_gyration(4,2)",
            "rmsd(0,2;0.1,0,0,0,0.3,-0.1)",
            "coordination(0,1;2,3;0.35)",
            "coordination(0;1;0.35;12)",
            "expression(a-k*b;k=2;a=distance(0,1);b=expression(x;x=coordinate(0));period=6.28)",
        ] {
            let variable: CollectiveVariable = text.parse().unwrap();
            assert_eq!(collective_variable(Some(&variable_message(&variable))), Ok(variable), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_message_is_named() {
        use proto::{CoordinationNumber, Expression, RadiusOfGyration, Rmsd, Variable};
        let refused = |variable: Variable, field: &str, words: &str| {
            let error = collective_variable(Some(&v1::CollectiveVariable { variable: Some(variable) })).unwrap_err();
            let FieldError { field: found, reason } = error;
            assert!(found == field && reason.contains(words), "{found}: {reason}");
        };
        refused(Variable::RadiusOfGyration(RadiusOfGyration { atoms: vec![0, -1] }), "variable", "-1 is negative");
        refused(Variable::Rmsd(Rmsd::default()), "variable.rmsd.reference", "missing");
        let flat = array(vec![0.0; 6], &[6], DataType::Float64, ArrayEncoding::Values);
        let flat = Rmsd { atoms: vec![0, 1], reference: Some(flat) };
        refused(Variable::Rmsd(flat), "variable.rmsd.reference", "(atoms, 3)");
        let negative = CoordinationNumber { n: -1, ..CoordinationNumber::default() };
        refused(Variable::CoordinationNumber(negative), "variable.coordination_number.n", "-1");
        let expression = |inner: v1::CollectiveVariable, period| {
            Variable::Expression(Expression {
                expression: "x".into(),
                variables: [("x".to_string(), inner)].into(),
                period,
            })
        };
        let x = variable_message(&CollectiveVariable::Coordinate { index: 0 });
        refused(expression(x.clone(), f64::NAN), "variable.expression.period", "NaN");
        refused(expression(x.clone(), -1.0), "variable.expression.period", "-1");
        let empty = v1::CollectiveVariable { variable: None };
        refused(expression(empty, 0.0), "variable.expression.variables[x].variable", "missing");
        let deep = (0..5).fold(x, |x, _| v1::CollectiveVariable { variable: Some(expression(x, 0.0)) });
        let field = format!("{}variable.expression", "variable.expression.variables[x].".repeat(4));
        refused(deep.variable.unwrap(), &field, "4 deep");
    }
}
