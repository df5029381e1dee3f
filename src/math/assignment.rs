//! The assignment of rows to columns with the least sum of costs.

/// The column of each row, for a matrix of costs (n, n) by rows; by shortest augmenting paths (Jonker and Volgenant,
/// Computing 38, 325 (1987)), in O(n³). Costs must be finite: with others the result is some permutation.
pub fn assign(costs: &[f64], n: usize) -> Vec<usize> {
    // Column n is where each row starts from; `row_of[column]` is n where there is none.
    let (mut row_price, mut column_price) = (vec![0.0; n + 1], vec![0.0; n + 1]);
    let mut row_of = vec![n; n + 1];
    let mut previous = vec![n; n + 1];
    for row in 0..n {
        row_of[n] = row;
        let mut column = n;
        let mut least = vec![f64::INFINITY; n];
        let mut is_done = vec![false; n + 1];
        while row_of[column] != n {
            is_done[column] = true;
            let from = row_of[column];
            let (mut step, mut nearest) = (f64::INFINITY, n);
            for next in (0..n).filter(|&next| !is_done[next]) {
                let reduced = costs[from * n + next] - row_price[from] - column_price[next];
                if reduced < least[next] {
                    least[next] = reduced;
                    previous[next] = column;
                }
                if least[next] < step || nearest == n {
                    (step, nearest) = (least[next], next);
                }
            }
            for k in 0..=n {
                if is_done[k] {
                    row_price[row_of[k]] += step;
                    column_price[k] -= step;
                } else if k < n {
                    least[k] -= step;
                }
            }
            column = nearest;
        }
        while column != n {
            row_of[column] = row_of[previous[column]];
            column = previous[column];
        }
    }
    let mut columns = vec![0; n];
    row_of[..n].iter().enumerate().for_each(|(column, &row)| columns[row] = column);
    columns
}

/// Whether no other assignment costs less than that of each row to its own column: there is no cycle of exchanges that
/// gains (Bellman, Q. Appl. Math. 16, 87 (1958)).
pub fn is_own_best(costs: &[f64], n: usize) -> bool {
    let mut gained = vec![0.0f64; n];
    for _ in 0..=n {
        let mut changed = false;
        for i in 0..n {
            for j in 0..n {
                let through = gained[i] + costs[i * n + j] - costs[j * n + j];
                if through < gained[j] {
                    gained[j] = through;
                    changed |= i != j;
                }
            }
        }
        if !changed {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::{Purpose, Randoms};

    fn cheapest_by_trying(costs: &[f64], n: usize, row: usize, taken: &mut Vec<usize>) -> (f64, Vec<usize>) {
        if row == n {
            return (0.0, taken.clone());
        }
        let mut best = (f64::INFINITY, Vec::new());
        for column in 0..n {
            if !taken.contains(&column) {
                taken.push(column);
                let (rest, columns) = cheapest_by_trying(costs, n, row + 1, taken);
                taken.pop();
                if rest + costs[row * n + column] < best.0 {
                    best = (rest + costs[row * n + column], columns);
                }
            }
        }
        best
    }

    #[test]
    fn no_permutation_costs_less() {
        let mut own_best = 0;
        for trial in 0..300 {
            let mut random = Randoms::new(trial, Purpose::Validation, 0);
            let n = 1 + (trial % 6) as usize;
            let costs: Vec<f64> = (0..n * n)
                .map(|k| random.normal() - if trial % 2 == 0 && k % (n + 1) == 0 { 1.5 } else { 0.0 })
                .collect();
            let (_, best) = cheapest_by_trying(&costs, n, 0, &mut Vec::new());
            assert_eq!(assign(&costs, n), best);
            let is_own = best.iter().enumerate().all(|(row, &column)| row == column);
            assert_eq!(is_own_best(&costs, n), is_own);
            own_best += u32::from(is_own && n > 2);
        }
        assert!(own_best > 20);
    }
}
