"""WordNet 3.0, read from the files that its own installers put on a machine, as the text of a lexicon.

WordNet is not part of this package. Its folder holds `data.noun`, `index.noun`, `cntlist.rev` and the like: that of the
variable WNSEARCHDIR, as for WordNet's own programs, or `/usr/share/wordnet` (Debian and Ubuntu: the package
`wordnet-base`). `lexicon` has the layout of the text.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

CATEGORIES = """
city=cities;urban_area=cities and towns;american_state=US states;european_country=European countries
asian_country=Asian countries;african_country=African countries;country#2=countries;national_capital=capital cities
state_capital=cities;administrative_district=states and districts;continent=continents
geographical_area=places;river=rivers;lake=lakes;ocean=oceans;body_of_water=bodies of water;island=islands
mountain=mountains;natural_elevation=mountains and hills;celestial_body=stars and planets;planet=planets
geological_formation=landforms;road=roads;way#6=ways and roads;desert=deserts
person=people;leader=leaders;ruler=rulers;politician=politicians;writer=writers;musician=musicians;artist=artists
scientist=scientists;philosopher=philosophers;actor=actors;athlete=athletes;president#3=presidents;lawyer=lawyers
relative=relatives;child=children;woman=women;man=men;adult=adults;female#2=females
worker=workers;professional=professionals;health_professional=doctors and nurses;educator=teachers;criminal=criminals
wrongdoer=wrongdoers;military_officer=military officers;serviceman=soldiers;clergyman=clergymen;nobleman=noblemen
friend=friends;traveler=travellers;owner=owners;specialist=experts;member=members;supporter=supporters
inhabitant=inhabitants;european#1=Europeans;american#1=Americans;asian#1=Asians;unfortunate=unfortunate people
animal=animals;mammal=mammals;bird=birds;fish#1=fish;insect=insects;reptile=reptiles;dog=dogs;cat=cats;horse=horses
invertebrate=invertebrates;plant#2=plants;tree=trees;flower=flowers;herb=herbs;fungus=fungi;microorganism=microbes
food=foods;food#2=solid foods;beverage=drinks;alcohol=alcoholic drinks;dish#2=dishes;meat=meats;edible_fruit=fruits
vegetable=vegetables;spice=spices;baked_goods=baked goods;dairy_product=dairy products;dessert=desserts;meal=meals
clothing=clothes;footwear=shoes;headdress=hats;fabric=fabrics;jewelry=jewels;furniture=furniture
vehicle=vehicles;motor_vehicle=motor vehicles;vessel#2=ships and boats;aircraft=aircraft;weapon=weapons;tool=tools
container=containers;device=devices;musical_instrument=musical instruments;machine=machines;computer=computers
building=buildings;room=rooms;structure=structures;housing=dwellings;shop=shops;equipment=equipment;toy#1=toys
electronic_equipment=electronic equipment;software=software;drug=drugs;medicine#2=medicines;material=materials
body_part=parts of the body;organ=organs;disease=diseases;illness=illnesses
symptom=symptoms;injury=injuries;mental_disorder=mental disorders;bodily_process=bodily processes
chemical_element=chemical elements;metallic_element=metals;compound#2=chemical compounds;gas#2=gases;liquid=liquids
rock=rocks;gem=gems;mineral=minerals;chromatic_color=colours;color=colours and shades;emotion=emotions;feeling=feelings
trait=traits of character;quality=qualities;ability=abilities;belief=beliefs;religion=religions;doctrine=doctrines
discipline=fields of study;natural_science=natural sciences;social_science=social sciences;mathematics=mathematics
natural_language=languages;letter#2=letters of the alphabet;number#2=names of numbers;measure#2=measures
calendar_month=calendar months;day_of_the_week=weekdays;calendar_day=days;holiday=holidays;season#1=seasons
time_period=periods of time;time_unit=units of time;hour=hours;monetary_unit=currencies;money=money
unit_of_measurement=units of measurement;linear_unit=units of length;payment=payments;cost=costs
possession=possessions;sport=sports;game=games;contest=contests;dance=dances;music=music
musical_composition=pieces of music
play#1=plays;movie=films;book=books;document=documents;publication=publications;writing#2=writings;story#1=stories
news=news;message=messages;letter=letters;speech_act=acts of speech;statement=statements;question=questions
request#1=requests;promise=promises;agreement=agreements;falsehood=falsehoods;word=words;name=names
crime=crimes;wrongdoing=wrongdoings;violence=violence;killing=killings;theft=thefts;war=wars;battle=battles
military_action=military actions;attack=attacks;law#2=laws;punishment=punishments;deception=deceptions
organization=organizations;company=companies;institution=institutions;school=schools;government=governments
political_party=parties;military_unit=military units;team=teams;gathering=gatherings;social_event=social events
ceremony=ceremonies;performance=performances;journey=journeys;locomotion=ways of moving;occupation=occupations
education=education;treatment#1=treatments;medical_procedure=medical procedures;procedure=procedures
commerce=trade;business#2=businesses;atmospheric_phenomenon=weather;natural_phenomenon=natural phenomena
deity=gods;spiritual_being=spirits;imaginary_being=imaginary beings;shape=shapes;sound#2=sounds;noise=noises
knowledge=knowledge;plan=plans;idea=ideas;difficulty=difficulties;pain=pains;death=deaths;problem=problems
thinking=ways of thinking;perception=perceptions;memory=memories;event=events;change#3=changes;condition=conditions
relationship=relationships;social_group=groups of people;collection=collections
region=regions;area#1=areas;freedom=freedoms;danger=dangers;speed=speeds
symbol=symbols;signal=signals;program#7=programs;data=data;information=information;evidence=evidence
substance=substances;activity=activities;action=actions;act#2=acts;attitude=attitudes
"""
"""What may be named in labels: WordNet's noun with the number of its sense, and the phrase that stands in a label."""
PLACE = Path("/usr/share/wordnet")
"""Where Debian's package puts it."""
IMPLIED = {"capital cities": "cities"}
"""WordNet does not count capitals among cities."""
VERBS = {
    "32": "verbs of saying",
    "38": "verbs of motion",
    "31": "verbs of thinking",
    "37": "verbs of feeling",
    "39": "verbs of perceiving",
    "30": "verbs of change",
    "40": "verbs of giving and getting",
    "35": "verbs of contact",
    "36": "verbs of making",
    "34": "verbs of eating and drinking",
    "29": "verbs of the body",
    "33": "verbs of fighting",
    "41": "verbs of social acts",
    "42": "verbs of being",
    "43": "verbs of weather",
}
"""WordNet's groups of verbs by the number of their lexicographer file."""
_LEAST_SHARE = 0.34
"""A word counts as a noun, or as a verb, from this share of its tagged occurrences."""
_SENSE_SHARE = 0.3
"""A further sense of a word counts from this share of the word's tagged occurrences."""


def wordnet_folder() -> Path | None:
    """The folder of WordNet's files on this machine; None where there is none."""
    asked = os.environ.get("WNSEARCHDIR")
    folder = Path(asked) if asked else PLACE
    return folder if (folder / "data.noun").is_file() else None


def phrases() -> tuple[str, ...]:
    """The names of all categories, sorted."""
    named = {entry.split("=")[1] for entry in CATEGORIES.replace("\n", ";").split(";") if entry}
    return tuple(sorted(named | set(VERBS.values())))


@dataclass(frozen=True)
class Synset:
    """A set of synonyms: its words, the synsets above it, and the number of its lexicographer file."""

    words: tuple[str, ...]
    above: tuple[str, ...]
    file: str


class WordNet:
    """One part of speech of WordNet, as its files have it."""

    def __init__(self, folder: Path, part: str) -> None:
        """`part` is `noun` or `verb`."""
        self.synsets = dict(map(_synset, _lines(folder / f"data.{part}")))
        self.senses = dict(map(_senses, _lines(folder / f"index.{part}")))

    def chain(self, offset: str) -> list[str]:
        """The synset and all above it, the nearest first."""
        found = [offset]
        while self.synsets[found[-1]].above:
            found.append(self.synsets[found[-1]].above[0])
        return found


def categories(nouns: WordNet) -> dict[str, str]:
    """The phrase of every category by its synset."""
    found = {}
    for entry in CATEGORIES.replace("\n", ";").split(";"):
        if entry:
            sense, phrase = entry.split("=")
            word, _, number = sense.partition("#")
            found[nouns.senses[word][int(number or 1) - 1]] = phrase
    return found


def lexicon_text(folder: Path) -> str:
    """The text of the lexicon that follows from WordNet's files in a folder."""
    counts = _counts(folder / "cntlist.rev")
    nouns, verbs = WordNet(folder, "noun"), WordNet(folder, "verb")
    named = categories(nouns)
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for word, senses in nouns.senses.items():
        if _is_wanted(word, nouns.synsets[senses[0]]) and _share(counts, word, "1") >= _LEAST_SHARE:
            own = [
                named[a] for sense in _common(counts, word, senses) for a in nouns.chain(sense) if a in named
            ]
            if own or (sum(counts.get((word, "1"), ())) and "_" not in word):
                own += [IMPLIED[phrase] for phrase in own if phrase in IMPLIED]
                groups[tuple(dict.fromkeys(own))].append(word)
    for word, senses in verbs.senses.items():
        if word.isalpha() and _share(counts, word, "2") >= _LEAST_SHARE:
            groups[(VERBS[verbs.synsets[senses[0]].file],)].append(word)
    known = phrases()
    lines = ["; ".join(known)]  # words without a category follow too: their base forms are of use
    for group, words in sorted(groups.items()):
        lines.append(",".join(str(known.index(p)) for p in group) + "\t" + " ".join(sorted(words)))
    irregular = [line.split()[:2] for part in ("noun", "verb") for line in _lines(folder / f"{part}.exc")]
    lines.append("=\t" + " ".join(f"{form}={base}" for form, base in irregular if (form + base).isalpha()))
    return "\n".join(lines) + "\n"


def _is_wanted(word: str, synset: Synset) -> bool:
    proper = any(own[:1].isupper() for own in synset.words if own.lower() == word)
    parts = word.split("_")
    return all(part.isalpha() for part in parts) and (len(parts) == 1 or (len(parts) == 2 and proper))


def _common(counts: dict[tuple[str, str], list[int]], word: str, senses: tuple[str, ...]) -> list[str]:
    """The first sense, and further ones that are common."""
    tagged = counts.get((word, "1"), [])
    total = sum(tagged)
    return [
        s for n, s in enumerate(senses) if not n or (n < len(tagged) and tagged[n] >= _SENSE_SHARE * total)
    ]


def _share(counts: dict[tuple[str, str], list[int]], word: str, part: str) -> float:
    """The share of a word's tagged occurrences in one part of speech, with half an occurrence added."""
    by_part = {p: sum(counts.get((word, p), ())) for p in "12345"}
    return (by_part[part] + 0.5) / (sum(by_part.values()) + 0.5)


def _counts(path: Path) -> dict[tuple[str, str], list[int]]:
    """How often each sense of a word was tagged, by word and part of speech (1 noun, 2 verb, 3 and 5 adjective)."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for line in path.read_text().splitlines():
        key, number, count = line.split()
        word, sense = key.split("%")
        tagged = found[word, sense[0]]
        tagged.extend([0] * (int(number) - len(tagged)))
        tagged[int(number) - 1] = int(count)
    return found


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="latin-1").splitlines() if not line.startswith("  ")]


def _synset(line: str) -> tuple[str, Synset]:
    fields = line.split(" ")
    words = int(fields[3], 16)
    at = 4 + 2 * words
    pointers = [fields[at + 1 + 4 * n : at + 5 + 4 * n] for n in range(int(fields[at]))]
    above = tuple(offset for symbol, offset, *_ in pointers if symbol in ("@", "@i"))
    return fields[0], Synset(tuple(fields[4:at:2]), above, fields[1])


def _senses(line: str) -> tuple[str, tuple[str, ...]]:
    fields = line.split()
    return fields[0], tuple(fields[-int(fields[2]) :])
