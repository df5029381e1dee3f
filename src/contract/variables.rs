//! Collective variables.

use super::FieldError;
use super::v1::{self, collective_variable as proto};
use crate::thermo::CollectiveVariable;

/// A collective variable that this version knows. Whether it fits a system is not checked here.
pub fn collective_variable(message: Option<&v1::CollectiveVariable>) -> Result<CollectiveVariable, FieldError> {
    use proto::Variable;
    let Some(variable) = message.and_then(|m| m.variable.as_ref()) else {
        return Err(FieldError::invalid("variable", "it is missing"));
    };
    let index = |i: i64| usize::try_from(i).map_err(|_| FieldError::invalid("variable", format!("{i} is negative")));
    let later = |name: &str| {
        let reason = "use coordinate, linear, distance, angle or dihedral";
        Err(FieldError::not_implemented(format!("variable.{name}"), reason))
    };
    Ok(match variable {
        Variable::Coordinate(v) => CollectiveVariable::Coordinate { index: index(v.index)? },
        Variable::Linear(v) => CollectiveVariable::Linear { coefficients: v.coefficients.clone() },
        Variable::Distance(v) => CollectiveVariable::Distance { atoms: [index(v.i)?, index(v.j)?] },
        Variable::Angle(v) => CollectiveVariable::Angle { atoms: [index(v.i)?, index(v.j)?, index(v.k)?] },
        Variable::Dihedral(v) => {
            CollectiveVariable::Dihedral { atoms: [index(v.i)?, index(v.j)?, index(v.k)?, index(v.l)?] }
        }
        Variable::RadiusOfGyration(_) => return later("radius_of_gyration"),
        Variable::Rmsd(_) => return later("rmsd"),
        Variable::CoordinationNumber(_) => return later("coordination_number"),
        Variable::Expression(_) => return later("expression"),
    })
}

pub fn variable_message(variable: &CollectiveVariable) -> v1::CollectiveVariable {
    use proto::Variable;
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
    };
    v1::CollectiveVariable { variable: Some(variable) }
}
