"""Words for generated pages: plain, accented, and in other scripts."""

from random import Random

WORDS = (
    "river winter garden letter morning silence window harbour paper mountain signal copper "
    "shadow island thread market answer journey station lantern meadow engine mirror captain "
    "bridge season compass orchard border archive thunder village chapter measure current "
    "kitchen machine feather promise storm candle number pattern library method object buffer "
    "stream handle record value result argument encoding returns raises optional default "
    "iterator sequence mapping context socket thread-safe deprecated platform available "
    "between under against within before after because while although until every another "
    "small great hidden early bright narrow distant ordinary curious patient final honest"
).split()
SMALL_WORDS = "the of a and to in is that it for with as on by from or when this not".split()
FOREIGN = (
    "Café Ångström naïve Señora L’Été Żółw Straße Çelik Crème Smørrebrød Ñandú Prêt-à-porter "
    "雪国 Война 바다 Θάλασσα"
).split()


def sentence(random: Random, length: int) -> str:
    """Return one English-looking sentence of about ``length`` words."""
    words = random.choices(WORDS, k=length)
    small = random.choices(SMALL_WORDS, k=length)
    mixed = [word for pair in zip(small, words, strict=True) for word in pair][:length]
    return " ".join(mixed).capitalize() + "."


def paragraph(random: Random, sentences: int) -> str:
    """Return ``sentences`` sentences as one line of text."""
    return " ".join(sentence(random, random.randint(8, 20)) for _ in range(sentences))


def title(random: Random) -> str:
    """Return the title of a book: one in six holds a word that is not ASCII, some hold marks."""
    words = [word.capitalize() for word in random.choices(WORDS, k=random.randint(2, 6))]
    if random.random() < 1 / 6:
        words.insert(0, random.choice(FOREIGN))
    marks = random.random()
    if marks < 0.1:
        words[-1] += f": A {random.choice(WORDS).capitalize()}’s “Tale”"
    elif marks < 0.2:
        words[-1] += f" & Other Stories (Vol. #{random.randint(1, 12)})"
    return " ".join(words)
