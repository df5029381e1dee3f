//! The weights of a flow that is trained.

use candle_core::backprop::GradStore;
use candle_core::{Result, Shape, Tensor, Var, bail};
use std::collections::BTreeMap;

/// The trainable weights of a flow, by path, and the variables that hold them.
///
/// Where the CPU's kernels run a flow, one variable holds all weights, in the order in which they read them: a step of
/// training then is a handful of operations on long vectors, and not a few on each of a hundred short ones. Where candle
/// operations run it, each weight is a variable.
#[derive(Debug)]
pub struct Weights {
    variables: Vec<Var>,
    places: BTreeMap<String, Place>,
}

/// Where a weight lies.
#[derive(Debug)]
struct Place {
    variable: usize,
    first: usize,
    shape: Shape,
}

impl Weights {
    /// Variables of these values, by path and in the order of the flow: one of all of them, or one of each.
    pub(super) fn new(values: Vec<(String, Tensor)>, together: bool) -> Result<Self> {
        let mut places = BTreeMap::new();
        let mut first = 0;
        for (i, (path, value)) in values.iter().enumerate() {
            let (variable, at) = if together { (0, first) } else { (i, 0) };
            places.insert(path.clone(), Place { variable, first: at, shape: value.shape().clone() });
            first += value.elem_count();
        }
        let variables = match together {
            false => values.iter().map(|(_, value)| Var::from_tensor(value)).collect::<Result<_>>()?,
            true if values.is_empty() => Vec::new(),
            true => {
                let flat = values.iter().map(|(_, value)| value.flatten_all()).collect::<Result<Vec<_>>>()?;
                vec![Var::from_tensor(&Tensor::cat(&flat, 0)?)?]
            }
        };
        Ok(Self { variables, places })
    }

    /// What an optimizer changes.
    pub fn variables(&self) -> &[Var] {
        &self.variables
    }

    /// The weight of a path as a part of its variable: differentiable, and always of the present value.
    pub(super) fn get(&self, path: &str) -> Result<Option<Tensor>> {
        self.places.get(path).map(|place| place.of(self.variables[place.variable].as_tensor())).transpose()
    }

    /// The weights by path, free of the graph; they change with their variables.
    pub fn values(&self) -> Result<BTreeMap<String, Tensor>> {
        let all: Vec<_> = self.variables.iter().map(|var| var.as_tensor().detach()).collect();
        self.by_path(&all)
    }

    /// Parts, by path, of tensors that are shaped as the variables are: moments or gradients of them.
    pub fn by_path(&self, whole: &[Tensor]) -> Result<BTreeMap<String, Tensor>> {
        let part = |(path, place): (&String, &Place)| {
            let Some(whole) = whole.get(place.variable) else { bail!("nothing was given for {path}") };
            Ok((path.clone(), place.of(whole)?))
        };
        self.places.iter().map(part).collect()
    }

    /// Gradients by path; of a weight that the loss does not depend on, zeros.
    pub fn gradients(&self, store: &GradStore) -> Result<BTreeMap<String, Tensor>> {
        let gradient = |var: &Var| match store.get(var) {
            Some(gradient) => Ok(gradient.clone()),
            None => var.zeros_like(),
        };
        self.by_path(&self.variables.iter().map(gradient).collect::<Result<Vec<_>>>()?)
    }

    /// The reverse of [`Weights::by_path`]: tensors shaped as the variables are, from parts by path, in memory of their own: parts
    /// may be those of the variables, which training writes over.
    ///
    /// Fails if a part is missing or of another shape, and names it.
    pub fn joined(&self, mut parts: BTreeMap<String, Tensor>) -> Result<Vec<Tensor>> {
        let mut of_variable: Vec<Vec<(usize, Tensor)>> = vec![Vec::new(); self.variables.len()];
        for (path, place) in &self.places {
            let Some(part) = parts.remove(path) else { bail!("{path} is missing") };
            if part.shape() != &place.shape {
                bail!("{path} has shape {:?}, the flow needs {:?}", part.shape(), place.shape);
            }
            of_variable[place.variable].push((place.first, part.flatten_all()?));
        }
        let join = |(mut parts, var): (Vec<(usize, Tensor)>, &Var)| {
            parts.sort_by_key(|(first, _)| *first);
            let parts: Vec<_> = parts.into_iter().map(|(_, part)| part).collect();
            Tensor::cat(&parts, 0)?.reshape(var.shape())?.to_dtype(var.dtype())?.copy()
        };
        of_variable.into_iter().zip(&self.variables).map(join).collect()
    }

    /// Gives all weights new values, by path.
    pub fn set(&self, values: BTreeMap<String, Tensor>) -> Result<()> {
        let values = self.joined(values)?;
        self.variables.iter().zip(&values).try_for_each(|(var, value)| var.set(value))
    }
}

impl Place {
    fn of(&self, whole: &Tensor) -> Result<Tensor> {
        whole.flatten_all()?.narrow(0, self.first, self.shape.elem_count())?.reshape(&self.shape)
    }
}
