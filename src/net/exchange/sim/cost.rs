//! What a simulated coalition costs: messages, bytes and processor time, by member.

use std::time::Duration;

use super::calls::Message;

/// What was sent and done since it was last taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Messages of all kinds, signs of life too.
    pub messages: u64,
    /// Their bytes, without TLS and HTTP/2.
    pub bytes: u64,
    /// Announcements of heads among them.
    pub heads: u64,
    /// Announcements of node cards among them.
    pub cards: u64,
    /// Signs of life among them.
    pub alive: u64,
    /// Messages of calls among them: greetings, rosters, pulls.
    pub calls: u64,
    /// Time on this machine's one thread that all members share.
    pub cpu: Duration,
}

impl Spent {
    fn add(&mut self, message: &Message) {
        // A tag and a length of an announcement's one field.
        const CARD: u8 = 2;
        const HEAD: u8 = 4;
        const ALIVE: u8 = 6;
        let bytes = u64::try_from(message.bytes()).unwrap_or(u64::MAX);
        self.messages = self.messages.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        let kind = match message {
            Message::Said(bytes) => match bytes.first().map(|tag| tag >> 3) {
                Some(CARD) => &mut self.cards,
                Some(HEAD) => &mut self.heads,
                Some(ALIVE) => &mut self.alive,
                Some(_) | None => return,
            },
            Message::Request(..)
            | Message::Answer(..)
            | Message::Ended(..)
            | Message::Cancel(_) => &mut self.calls,
        };
        *kind = kind.saturating_add(1);
    }

    fn plus(&mut self, other: &Self) {
        self.messages = self.messages.saturating_add(other.messages);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.heads = self.heads.saturating_add(other.heads);
        self.cards = self.cards.saturating_add(other.cards);
        self.alive = self.alive.saturating_add(other.alive);
        self.calls = self.calls.saturating_add(other.calls);
        self.cpu = self.cpu.saturating_add(other.cpu);
    }
}

/// By member.
#[derive(Debug, Default)]
pub(crate) struct Cost(Vec<Spent>);

impl Cost {
    fn of(&mut self, at: usize) -> Option<&mut Spent> {
        if self.0.len() <= at {
            self.0.resize(at.saturating_add(1), Spent::default());
        }
        self.0.get_mut(at)
    }

    pub(crate) fn sent(&mut self, at: usize, message: &Message) {
        if let Some(spent) = self.of(at) {
            spent.add(message);
        }
    }

    pub(crate) fn spent(&mut self, at: usize, time: Duration) {
        if let Some(spent) = self.of(at) {
            spent.cpu = spent.cpu.saturating_add(time);
        }
    }

    /// What each member had since it was last taken.
    #[cfg(test)]
    pub(crate) fn each(&self) -> &[Spent] {
        &self.0
    }

    /// Takes all of it: the sum, and the most that one member had.
    pub(crate) fn take(&mut self) -> (Spent, Spent) {
        let (mut sum, mut most) = (Spent::default(), Spent::default());
        for spent in std::mem::take(&mut self.0) {
            sum.plus(&spent);
            if spent.messages > most.messages {
                most = spent;
            }
        }
        (sum, most)
    }
}
