"""Whisper's special tokens, by which a prompt tells the decoder the language, the task, and whether to write times.

A vocabulary ends with them, in this order; ``l`` is the number of languages:

==================  ============================================================
offset              token
==================  ============================================================
0 … l - 1           a language: ``<|en|>``, ``<|zh|>``, …
l                   ``<|translate|>``: write English, whatever is spoken
l + 1               ``<|transcribe|>``: write what is spoken, as it is spoken
l + 2, l + 3        ``<|startoflm|>``, ``<|startofprev|>``: not used here
l + 4               ``<|nospeech|>``: nobody speaks
l + 5               ``<|notimestamps|>``: write no times
l + 6 …             a time: ``<|0.00|>``, ``<|0.02|>``, … to the end of the window
==================  ============================================================

Source: Radford et al. 2022 (Whisper), section 2.3 and figure 1; official code, ``whisper/tokenizer.py``.
"""

from typing import NamedTuple

from mmlearn.suggestions import suggest

# Code and name, in the order of their tokens. Cantonese is new in large-v3.
CODES_AND_NAMES = """
en english, zh chinese, de german, es spanish, ru russian, ko korean, fr french, ja japanese, pt portuguese,
tr turkish, pl polish, ca catalan, nl dutch, ar arabic, sv swedish, it italian, id indonesian, hi hindi, fi finnish,
vi vietnamese, he hebrew, uk ukrainian, el greek, ms malay, cs czech, ro romanian, da danish, hu hungarian, ta tamil,
no norwegian, th thai, ur urdu, hr croatian, bg bulgarian, lt lithuanian, la latin, mi maori, ml malayalam, cy welsh,
sk slovak, te telugu, fa persian, lv latvian, bn bengali, sr serbian, az azerbaijani, sl slovenian, kn kannada,
et estonian, mk macedonian, br breton, eu basque, is icelandic, hy armenian, ne nepali, mn mongolian, bs bosnian,
kk kazakh, sq albanian, sw swahili, gl galician, mr marathi, pa punjabi, si sinhala, km khmer, sn shona, yo yoruba,
so somali, af afrikaans, oc occitan, ka georgian, be belarusian, tg tajik, sd sindhi, gu gujarati, am amharic,
yi yiddish, lo lao, uz uzbek, fo faroese, ht haitian-creole, ps pashto, tk turkmen, nn nynorsk, mt maltese,
sa sanskrit, lb luxembourgish, my myanmar, bo tibetan, tl tagalog, mg malagasy, as assamese, tt tatar, haw hawaiian,
ln lingala, ha hausa, ba bashkir, jw javanese, su sundanese, yue cantonese
"""
LANGUAGES: dict[str, str] = dict(each.split() for each in CODES_AND_NAMES.split(","))
TASKS = ("transcribe", "translate")
OTHERS = 6  # special tokens between languages and times


class SpecialTokens(NamedTuple):
    """The numbers of the special tokens of a vocabulary, whose last tokens they are."""

    vocab_size: int
    languages: tuple[str, ...]
    times: int  # tokens of times: 0.00 s, 0.02 s, …
    multilingual: bool = True  # False: the prompt names neither language nor task

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.languages) + OTHERS + self.times

    @property
    def first(self) -> int:
        """The first language. ``ValueError`` for a vocabulary that has no room for special tokens."""
        if self.count > self.vocab_size:
            raise ValueError(f"{self.vocab_size} tokens have no room for {self.count} special ones, so no prompt.")
        return self.vocab_size - self.count

    @property
    def no_times(self) -> int:
        return self.first_time - 1

    @property
    def first_time(self) -> int:
        """The token of 0.00 s; that of time τ is ⌊τ / 0.02 s⌋ behind it."""
        return self.vocab_size - self.times

    def language(self, name: str) -> int:
        """The token of a language, by its code or its English name. ``ValueError`` for one that there is not."""
        code = {LANGUAGES[code]: code for code in self.languages}.get(name.lower().replace(" ", "-"), name.lower())
        if code not in self.languages:
            known = {LANGUAGES[code]: code for code in self.languages}
            raise ValueError(f"This Whisper knows no language {name!r}; {suggest(name, [*known, *self.languages])}.")
        return self.first + self.languages.index(code)

    def prompt(self, language: str | None = "en", task: str = "transcribe", times: bool = False) -> tuple[int, ...]:
        """What stands between the start token and the text: language, task, and that there are no times.

        A model of English alone has neither language nor task. Raises ``ValueError`` for a language or a task that
        there is not, and where such a model is given one.
        """
        if task not in TASKS:
            raise ValueError(f"There is no task {task!r}; {suggest(task, TASKS)}.")
        without_times = () if times else (self.no_times,)
        if not self.multilingual:
            if language is not None or task != "transcribe":
                asked = f"language {language!r}" if language is not None else f"task {task!r}"
                raise ValueError(f"This Whisper writes English alone, and takes no {asked}: leave it out.")
            return without_times
        if language is None:
            raise ValueError("A prompt of several languages names one of them, such as 'fr'.")
        return (self.language(language), self.first + len(self.languages) + (task == "transcribe"), *without_times)
