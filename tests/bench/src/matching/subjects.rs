//! Subjects as people write them, the same ones each time.

/// Words of subjects that trigger nothing.
const PLAIN: [&str; 48] = [
    "avstämning",
    "budget",
    "uppföljning",
    "ekonomi",
    "planering",
    "projekt",
    "kund",
    "leverans",
    "genomgång",
    "workshop",
    "intervju",
    "med",
    "och",
    "för",
    "om",
    "inför",
    "styrelsen",
    "våren",
    "Q3",
    "Q4",
    "Erik",
    "Åsa",
    "Malmö",
    "kontoret",
    "veckobrev",
    "tandläkare",
    "träning",
    "hämta",
    "barnen",
    "fika",
    "review",
    "sync",
    "with",
    "the",
    "sales",
    "team",
    "weekly",
    "planning",
    "customer",
    "roadmap",
    "call",
    "interview",
    "onboarding",
    "demo",
    "release",
    "retrospective",
    "design",
    "Göteborg",
];

/// What subjects with a trigger word have of it, and two that only look like it.
const TRIGGERING: [&str; 12] = [
    "Lunch",
    "LUN",
    "Meeting",
    "MÖT",
    "möt",
    "Holiday",
    "TJR",
    "Gone for the day",
    "DND",
    "Out of office",
    "Lunchen",
    "Ute på arbete",
];

/// One subject in this many has something of [`TRIGGERING`].
const TRIGGERING_EVERY: u64 = 8;

/// One subject in this many is long.
const LONG_EVERY: u64 = 50;

/// `count` subjects: some 25 characters on average, one in fifty from 120 up to 255.
pub(super) fn generate(count: usize) -> Vec<String> {
    let mut numbers = Numbers(0x5eed);
    (0..count).map(|_| subject(&mut numbers)).collect()
}

fn subject(numbers: &mut Numbers) -> String {
    let characters =
        if numbers.below(LONG_EVERY) == 0 { 120 + numbers.below(130) } else { 8 + numbers.below(26) };
    let triggering = (numbers.below(TRIGGERING_EVERY) == 0).then(|| numbers.pick(&TRIGGERING));
    let mut words: Vec<&str> = triggering.into_iter().collect();
    while words.iter().map(|word| word.chars().count() as u64 + 1).sum::<u64>() < characters {
        words.push(numbers.pick(&PLAIN));
    }
    // The trigger word stands anywhere.
    let place = usize::try_from(numbers.below(words.len() as u64)).unwrap_or(0);
    words.swap(0, place);
    words.join(" ").chars().take(255).collect()
}

/// A splitmix generator: repeatable, and good enough for words.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[usize::try_from(self.below(from.len() as u64)).unwrap_or(0)]
    }
}
