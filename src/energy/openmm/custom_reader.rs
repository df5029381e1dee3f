//! What the custom forces have in common in their XML: parameters, tabulated functions and expressions.

use super::expression::{Axis, EnergyProgram, Graph, Node, Scope, Table, TableName, parse};
use super::xml::{Element, quoted};
use crate::energy::potential::EnergyError;
use std::collections::BTreeSet;

/// The names and tables that a force's expressions may use, and the graph that they become part of.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    pub scope: Scope,
    pub graph: Graph,
    pub tables: Vec<Table>,
}

impl Definitions {
    /// The global parameters and functions of a force.
    pub fn read(force: &Element) -> Result<Self, EnergyError> {
        let mut definitions = Self::default();
        definitions.of_one(force, &[], 0)?;
        if let Some(list) = force.optional_child("Functions")? {
            for function in list.children("Function") {
                definitions.function(&function?)?;
            }
        }
        Ok(definitions)
    }

    /// Definitions with the same functions, and no names yet, for another program of the force.
    pub fn again(&self) -> Self {
        Self { scope: Scope { tables: self.scope.tables.clone(), ..Scope::default() }, ..Self::default() }
    }

    /// Gives a name to an expression.
    pub fn name(
        &mut self,
        element: &Element,
        name: impl Into<String>,
        node: impl FnOnce(&mut Graph) -> Node,
    ) -> Result<(), EnergyError> {
        let (name, node) = (name.into(), node(&mut self.graph));
        if self.scope.names.insert(name.clone(), node).is_some() {
            return Err(element.fault(format!("'{}' is the name of two things in it", quoted(&name))));
        }
        Ok(())
    }

    /// Names that are parameters of a term, counted from `first`, with something appended to each.
    pub fn parameters(
        &mut self,
        element: &Element,
        names: &[&str],
        suffix: &str,
        first: usize,
    ) -> Result<(), EnergyError> {
        names
            .iter()
            .enumerate()
            .try_for_each(|(k, name)| self.name(element, format!("{name}{suffix}"), |graph| graph.parameter(first + k)))
    }

    /// The names that an expression of one atom may use: the global parameters, and the atom's from `first`.
    pub fn of_one(&mut self, force: &Element, names: &[&str], first: usize) -> Result<(), EnergyError> {
        for (name, value) in global_parameters(force)? {
            self.name(force, name, |graph| graph.constant(value))?;
        }
        self.parameters(force, names, "", first)
    }

    /// The expression in an attribute of an element.
    pub fn expression(&mut self, element: &Element, attribute: &str) -> Result<Node, EnergyError> {
        let text = element.required(attribute)?;
        parse(text, &mut self.scope, &mut self.graph)
            .map_err(|error| element.fault(format!("attribute {attribute}: {}", error.describe(text))))
    }

    /// The program of an energy.
    pub fn program(
        &mut self,
        element: &Element,
        energy: Node,
        parameters: usize,
        variables: usize,
    ) -> Result<EnergyProgram, EnergyError> {
        let program = EnergyProgram::new(&mut self.graph, energy, parameters, variables);
        if self.graph.is_overflown() {
            return Err(element.fault("its expressions and their derivatives are too long to be evaluated"));
        }
        Ok(program)
    }

    fn function(&mut self, function: &Element) -> Result<(), EnergyError> {
        let name = function.required("name")?;
        let mut values = Vec::new();
        for value in function.child("Values")?.children("Value") {
            values.push(value?.number("v")?);
        }
        let size = |name: &str| {
            let size = function.integer(name)?;
            usize::try_from(size)
                .map_err(|_| function.fault(format!("attribute {name} is {size}; it must not be negative")))
        };
        let periodic = matches!(function.attribute("periodic"), Some("1"));
        let axis = |points: usize, [minimum, maximum]: [&str; 2]| {
            Ok::<_, EnergyError>(Axis {
                minimum: function.number(minimum)?,
                maximum: function.number(maximum)?,
                points,
                periodic,
            })
        };
        let (x, y, z) = (["xmin", "xmax"], ["ymin", "ymax"], ["zmin", "zmax"]);
        let table = match function.required("type")? {
            "Continuous1DFunction" => Table::smooth(vec![axis(values.len(), ["min", "max"])?], &values),
            "Continuous2DFunction" => Table::smooth(vec![axis(size("xsize")?, x)?, axis(size("ysize")?, y)?], &values),
            "Continuous3DFunction" => {
                let axes = vec![axis(size("xsize")?, x)?, axis(size("ysize")?, y)?, axis(size("zsize")?, z)?];
                Table::smooth(axes, &values)
            }
            "Discrete1DFunction" => Table::discrete(&[values.len()], values),
            "Discrete2DFunction" => Table::discrete(&[size("xsize")?, size("ysize")?], values),
            "Discrete3DFunction" => Table::discrete(&[size("xsize")?, size("ysize")?, size("zsize")?], values),
            kind => Err(format!("its type {} is not known", quoted(kind))),
        };
        let table = table.map_err(|what| function.fault(format!("the function {}: {what}", quoted(name))))?;
        let entry = TableName {
            index: self.tables.len() as u32,
            arguments: table.arguments() as u8,
            smooth: table.is_smooth(),
        };
        self.tables.push(table);
        if self.scope.tables.insert(name.to_string(), entry).is_some() {
            return Err(function.fault(format!("a second function with the name {}", quoted(name))));
        }
        Ok(())
    }
}

/// The names and default values of a force's global parameters.
pub(super) fn global_parameters<'a>(force: &Element<'a, '_>) -> Result<Vec<(&'a str, f64)>, EnergyError> {
    let Some(list) = force.optional_child("GlobalParameters")? else { return Ok(Vec::new()) };
    list.children("Parameter")
        .map(|parameter| {
            let parameter = parameter?;
            Ok((parameter.required("name")?, parameter.number("default")?))
        })
        .collect()
}

/// The names of a list of parameters, which must be different.
pub(super) fn parameter_names<'a>(force: &Element<'a, '_>, list: &str) -> Result<Vec<&'a str>, EnergyError> {
    let list = force.child(list)?;
    let names =
        list.children("Parameter").map(|parameter| parameter?.required("name")).collect::<Result<Vec<_>, _>>()?;
    let different: BTreeSet<_> = names.iter().collect();
    if different.len() != names.len() {
        return Err(list.fault("a parameter's name is there twice"));
    }
    Ok(names)
}

/// The values of so many parameters of a term.
pub(super) fn parameter_values(term: &Element, count: usize) -> Result<Vec<f64>, EnergyError> {
    (1..=count).map(|k| term.number(&format!("param{k}"))).collect()
}

/// Pairs that a force leaves out: for each atom, the later ones.
pub(super) fn exclusions(force: &Element, atoms: usize) -> Result<Vec<BTreeSet<usize>>, EnergyError> {
    let mut excluded = vec![BTreeSet::new(); atoms];
    for exclusion in force.child("Exclusions")?.children("Exclusion") {
        let [i, j] = exclusion?.particles(["p1", "p2"], atoms)?.map(|p| p as usize);
        excluded[i.min(j)].insert(i.max(j));
    }
    Ok(excluded)
}

/// The cutoff of a force without periodic boundary conditions; none for the method NoCutoff. Other methods have been
/// refused before.
pub(super) fn cutoff(force: &Element) -> Result<Option<f64>, EnergyError> {
    if force.integer("method")? == 0 {
        return Ok(None);
    }
    let cutoff = force.number("cutoff")?;
    if cutoff <= 0.0 {
        return Err(force.fault(format!("attribute cutoff is {cutoff}; it must be positive")));
    }
    Ok(Some(cutoff))
}

/// Where a force begins to be switched off before its cutoff, if it is.
pub(super) fn switching_distance(force: &Element, cutoff: Option<f64>) -> Result<Option<f64>, EnergyError> {
    let Some(cutoff) = cutoff.filter(|_| force.attribute("useSwitchingFunction") == Some("1")) else { return Ok(None) };
    let distance = force.number("switchingDistance")?;
    if !(0.0..cutoff).contains(&distance) {
        let what = format!("attribute switchingDistance is {distance}; it must be from 0 to below the cutoff {cutoff}");
        return Err(force.fault(what));
    }
    Ok(Some(distance))
}
