//! Taking turns on a device.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Who goes first. Within a priority it is first come, first served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for samples.
    Interactive,
    /// Training, which gives way between steps.
    Background,
}

/// One computation at a time on a device. Waiting blocks the thread: never wait on an async thread.
#[derive(Debug, Default)]
pub struct DeviceSlot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    busy: bool,
    next_ticket: u64,
    interactive: VecDeque<u64>,
    background: VecDeque<u64>,
    busy_seconds: f64,
}

/// The right to use the device, until it is dropped.
#[derive(Debug)]
pub struct SlotGuard<'a> {
    slot: &'a DeviceSlot,
    since: Instant,
}

impl DeviceSlot {
    /// Waits for its turn.
    pub fn acquire(&self, priority: Priority) -> SlotGuard<'_> {
        loop {
            if let Some(turn) = self.acquire_unless(priority, || false) {
                return turn;
            }
        }
    }

    /// Waits for its turn, or until it is not needed any more: `needless` is asked whenever a turn of somebody ends.
    pub fn acquire_unless(&self, priority: Priority, needless: impl Fn() -> bool) -> Option<SlotGuard<'_>> {
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.queue(priority).push_back(ticket);
        while !state.is_turn_of(priority, ticket) {
            if needless() {
                state.queue(priority).retain(|&waiting| waiting != ticket);
                drop(state);
                // Whoever comes after this one may be the next now.
                self.changed.notify_all();
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.queue(priority).pop_front();
        state.busy = true;
        Some(SlotGuard { slot: self, since: Instant::now() })
    }

    /// How many wait for the device.
    pub fn waiting(&self) -> usize {
        let state = self.lock();
        state.interactive.len() + state.background.len()
    }

    /// Seconds that the device was in use, so far.
    pub fn busy_seconds(&self) -> f64 {
        self.lock().busy_seconds
    }

    // A panic in a computation leaves the state as sound as it was: it is only changed in this file.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn queue(&mut self, priority: Priority) -> &mut VecDeque<u64> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Background => &mut self.background,
        }
    }

    fn is_turn_of(&mut self, priority: Priority, ticket: u64) -> bool {
        let others_first = priority == Priority::Background && !self.interactive.is_empty();
        !self.busy && !others_first && self.queue(priority).front() == Some(&ticket)
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.slot.lock();
        state.busy = false;
        state.busy_seconds += self.since.elapsed().as_secs_f64();
        drop(state);
        self.slot.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn samplers_go_before_training_and_nobody_overlaps() {
        let slot = Arc::new(DeviceSlot::default());
        let first = slot.acquire(Priority::Background);
        let (order, seen) = mpsc::channel();
        let mut threads = Vec::new();
        let wait_for = |n: usize| {
            while slot.waiting() < n {
                thread::yield_now();
            }
        };
        for (i, priority) in
            [Priority::Background, Priority::Interactive, Priority::Interactive].into_iter().enumerate()
        {
            let (slot, order) = (Arc::clone(&slot), order.clone());
            threads.push(thread::spawn(move || {
                let _turn = slot.acquire(priority);
                order.send(i).unwrap();
            }));
            wait_for(i + 1);
        }
        drop(first);
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(slot.waiting(), 0);
    }
}
