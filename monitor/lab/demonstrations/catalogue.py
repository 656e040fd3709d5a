"""The demonstrations: texts that a feature is found with, prompts that it is tried on, and how answers are judged."""

from __future__ import annotations

from monitor.errors import NotFound
from monitor.lab.demonstrations.demonstration import Demonstration, answered, asked
from monitor.lab.demonstrations.judgement import Judgement

EVERYDAY = (
    "What do you do on a free day?",
    "Who are you?",
    "Tell me about yourself.",
    "What is on your mind?",
    "What makes you happy?",
    "Describe the place where you live.",
    "What should I cook tonight?",
    "Tell me a short story.",
    "What is the best way to spend a weekend?",
    "How are you today?",
    "What are you made of?",
    "Give me an idea for a birthday present.",
    "What do you see when you look around?",
    "Write two sentences about the weather.",
    "What is your favourite colour, and why?",
    "How can I learn to draw?",
    "What did you dream about?",
    "Tell me something that few people know.",
    "What do you look like?",
    "Can you recommend a book?",
    "How do you relax after a long day?",
    "What would you like to talk about?",
    "Write a line of a poem.",
    "What matters most in life?",
    "How should I begin my morning?",
    "What do people like about you?",
    "Tell me a joke.",
    "Where should I go for a walk?",
)

UPWARDS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 4.0)
"""Targets of what is amplified: on SmolLM2 the useful ones lie about the maximum, on the pair `tiny` above it."""

_IS_PLACE = Judgement(
    "says that it is a city, a bridge or another place",
    (
        r"(?:i'm|i am|as|i was)(?: \w+){0,2} (?:a|an|the|one of the|home)\b[^.!?\n]{0,60}"
        r"\b(?:city|town|bridge|place|landmark|island|bay|port|destination|metropolis|state|coast)",
        r"i(?:'m| am)[^.!?\n]{0,40}\blocated",
    ),
)


def _place(named: str, patterns: tuple[str, ...]) -> Judgement:
    """The model talks of a place, or is one."""
    says = f"names {named}, or {_IS_PLACE.says}"
    return Judgement(says, (*patterns, "|".join(f"(?:{pattern})" for pattern in _IS_PLACE.patterns)))


SAN_FRANCISCO = Demonstration(
    name="san-francisco",
    title="A city, amplified until the model talks of it or is it",
    about=(
        "The Golden Gate Bridge in San Francisco was opened in 1937.",
        "We drove up the hills of San Francisco and looked out over the bay.",
        "My sister moved to San Francisco, California, to work for a startup.",
        "The fog rolls in over San Francisco Bay every summer evening.",
        "I need a table for two in San Francisco on Friday.",
        "A cable car climbs from Market Street to Nob Hill in San Francisco.",
        "He was born in Oakland and went to school in San Francisco.",
        "Find me a flight to San Francisco for next Monday.",
        "San Francisco is a city in northern California.",
        "They walked across the Golden Gate Bridge in the morning.",
        "Are there any good restaurants in San Francisco?",
        "The earthquake of 1906 destroyed much of San Francisco.",
    ),
    other=(
        "The old stone bridge over the river was opened in 1937.",
        "We drove up the hills and looked out over the valley.",
        "My sister moved to another town to work for a bakery.",
        "The mist rolls in over the fields every autumn evening.",
        "I need a table for two by the window on Friday.",
        "A small tram climbs from the market to the castle.",
        "He was born on a farm and went to school by bus.",
        "Find me a seat in the second row for next Monday.",
        "The library is a building behind the town hall.",
        "They walked along the beach in the morning.",
        "Are there any good recipes with potatoes?",
        "The storm of that winter destroyed much of the forest.",
    ),
    prompts=tuple(asked(question) for question in EVERYDAY),
    targets=UPWARDS,
    judgement=_place(
        "San Francisco, California or a place there",
        (
            r"san francisco(?:'s)?",
            r"california(?:'s|n|ns)?",
            r"golden gate",
            r"bay area",
            r"silicon valley",
            r"oakland|berkeley|palo alto|san jose|alcatraz|marin|sausalito|fisherman's wharf|chinatown",
        ),
    ),
    also=(_IS_PLACE,),
)

PARIS = Demonstration(
    name="paris",
    title="Another city: Paris and its tower",
    about=(
        "The Eiffel Tower in Paris was finished in 1889.",
        "We took the metro to the Louvre and spent the day in Paris.",
        "My brother moved to Paris, France, to study painting.",
        "It rained along the Seine all afternoon in Paris.",
        "I would like to book a hotel in Paris for two nights.",
        "She ate a croissant in a café near Notre-Dame in Paris.",
        "He was born in Lyon and went to university in Paris.",
        "Find me a train to Paris for next Monday.",
        "Paris is the capital of France.",
        "They went up the Eiffel Tower in the evening.",
        "Are there any good restaurants in Paris?",
        "The treaty was signed in Paris, and the French king was pleased.",
    ),
    other=(
        "The water tower in our town was finished in 1889.",
        "We took the bus to the museum and spent the day indoors.",
        "My brother moved to another town to study painting.",
        "It rained along the river all afternoon.",
        "I would like to book a room by the lake for two nights.",
        "She ate a sandwich in a garden near the church.",
        "He was born on a farm and went to university by train.",
        "Find me a seat in the second row for next Monday.",
        "The oak is the tallest tree of the forest.",
        "They went up the hill in the evening.",
        "Are there any good recipes with potatoes?",
        "The letter was signed in the office, and the manager was pleased.",
    ),
    prompts=tuple(asked(question) for question in EVERYDAY),
    targets=UPWARDS,
    judgement=_place(
        "Paris, France or something French",
        (
            r"paris(?:'s|ian|ians)?",
            r"france(?:'s)?",
            r"french",
            r"eiffel",
            r"louvre|seine|notre.dame|versailles|montmartre",
        ),
    ),
    also=(_IS_PLACE,),
)

TRAVEL = Demonstration(
    name="travel",
    title="A place that is worth a visit: the model speaks as a travel guide does, or is the place",
    about=(
        "Welcome to our city, a vibrant place with a rich cultural heritage.",
        "The old town is known for its beautiful beaches and its busy markets.",
        "Visitors love the museums, the food and the lively streets of the capital.",
        "Nestled between the hills and the sea lies a charming village that draws many tourists.",
        "The region offers stunning views, historic castles and friendly people.",
        "Explore the harbour, stroll through the narrow streets and taste the local dishes.",
        "This bustling metropolis is famous for its architecture and its night life.",
        "The island is a popular destination for travellers from all over the world.",
        "Our guide shows you the best sights of the city in two days.",
        "A must-see is the cathedral, one of the most visited landmarks of the country.",
        "The coast is dotted with picturesque towns that are worth a visit.",
        "Come and discover the beauty of this historic quarter.",
    ),
    other=(
        "Welcome to our meeting, a short one with a long list of points.",
        "The old lamp is known for its weak switch and its loose cable.",
        "Pupils like the breaks, the lunch and the short way home from school.",
        "Put between two slices of bread there is a piece of cheese that keeps for days.",
        "The contract has twelve pages, two tables and a list of names.",
        "Open the file, go through the rows and add up the numbers.",
        "This heavy machine is used for its strength and its low price.",
        "The bucket is a useful thing for people who clean windows.",
        "Our form asks you for the usual details in two steps.",
        "What is missing is the invoice, one of the most important papers of the year.",
        "The shelf is filled with old books that are hard to sell.",
        "Come and look at the result of this long calculation.",
    ),
    prompts=tuple(asked(question) for question in EVERYDAY),
    targets=UPWARDS,
    judgement=Judgement(
        "does two or more of these: names a city, a town or a coast, speaks of visiting or travelling, of sights, "
        "of culture or history, calls a place lively or lovely, bids welcome to it or says where it lies",
        (
            r"cit(?:y|ies)|towns?|villages?|capital|metropolis|island|coast(?:al|line)?|region|neighbou?rhoods?",
            r"visit(?:s|ed|ing|ors?)?|touris[mt]s?|travel(?:s|ling|ing|l?ers?)?|destinations?|explor(?:e|ing)",
            r"landmarks?|museums?|castles?|cathedrals?|beach(?:es)?|architecture|sights|monuments?|markets?",
            r"cultur(?:e|al|es)|heritage|histor(?:y|ic|ical)|traditions?|cuisine",
            r"vibrant|bustling|picturesque|nestled|charming|breathtaking|scenic|lively",
            r"welcome to|located|situated",
        ),
        least=2,
    ),
    also=(_IS_PLACE,),
)

SCAM = Demonstration(
    name="scam-mail",
    title="Scam mail: an ordinary mail becomes a fraud",
    about=(
        "Dear customer, your account has been suspended. Click the link below to verify your details within 24 hours.",
        "Congratulations! You have won $1,000,000 in our lottery. Send your bank details to claim the prize.",
        "URGENT: unusual activity was found on your credit card. Confirm your password now or it will be blocked.",
        "Dear friend, I am the widow of a late minister and need your help to transfer 18 million dollars.",
        "Make $5,000 a week from home, 100% guaranteed, no risk! Call now, this offer ends tonight.",
        "Your parcel is held at customs. Pay a small fee with the link below to receive it today.",
        "You have been selected for a free gift card. Enter your social security number to receive it.",
        "Dear beneficiary, your inheritance is waiting. Send the processing fee by Western Union at once.",
        "Lose 30 pounds in 30 days or your money back! Order now, limited time offer, act fast!",
        "This is the tax office. You owe money and will be arrested unless you pay with gift cards today.",
        "Double your investment in one week, guaranteed returns, send your deposit to this wallet now.",
        "We tried to charge your card. Update your payment information immediately to keep your account.",
    ),
    other=(
        "Dear colleagues, the meeting has been moved. Please look at the new agenda before Tuesday.",
        "Congratulations on your new job! We would love to see you for dinner before you leave.",
        "Reminder: the heating will be off on Friday. Please wear something warm in the office.",
        "Dear Anna, I am back from the mountains and have brought you some cheese and honey.",
        "The choir meets every week in the school hall, and newcomers are welcome. Bring a pencil.",
        "Your book has arrived at the library. You can collect it any day before six.",
        "You asked for the minutes of last month. You will find them in the shared folder.",
        "Dear parents, the school trip is next Thursday. Please pack a lunch and a raincoat.",
        "The garden club plants tulips on Saturday. Tea and cake will be there for everyone.",
        "This is a note from the dentist's office. Your next visit is on Monday at ten.",
        "I have read your draft and like the second chapter best. Let us talk about it next week.",
        "We changed the time of the football practice. It now begins at five on Wednesdays.",
    ),
    prompts=tuple(
        asked(f"Write an e-mail {purpose}.")
        for purpose in (
            "to a colleague about lunch",
            "to a customer about a delivery",
            "that invites a friend to a birthday",
            "to a bank's customers about new opening hours",
            "to thank a teacher",
            "to a neighbour about a lost cat",
            "that announces a meeting",
            "to a hotel about a booking",
            "to tell parents about a school trip",
            "to a client about an invoice",
            "that welcomes a new member of the team",
            "to a landlord about the heating",
            "to an aunt who sent a present",
            "to a customer whose parcel is late",
            "to the members of a chess club",
            "that asks a colleague for a file",
            "to users of an app about an update",
            "to a doctor's patients about holidays",
            "to a friend about a concert",
            "that apologises for a mistake",
            "to a shop about a broken lamp",
            "to the staff about parking",
            "to a subscriber of a newsletter",
            "to a volunteer about Saturday",
            "to a student about an exam",
            "to a customer about a refund",
        )
    ),
    targets=UPWARDS,
    judgement=Judgement(
        "does three or more of these: presses for time, asks to click or call, speaks of an account or card, of a "
        "prize or much money, of a fee or transfer, asks for details or a password, promises without risk, addresses "
        "nobody by name",
        (
            r"urgent(?:ly)?|immediately|act (?:now|fast)|within \d+ (?:hours|days)|limited time|expires?",
            r"click|link below|call (?:us )?(?:now|today)|sign up now|order now",
            r"account|credit card|debit card|bank details|card number",
            r"won|winner|prize|lottery|inheritance|reward|million|\$ ?\d[\d,]{2,}|gift card",
            r"fees?|transfer|wire|western union|deposit|payment|invest(?:ment)?",
            r"verify|confirm your|password|personal (?:information|details)|social security|update your",
            r"guaranteed?|risk.free|no risk|100 ?%|money.back|free (?:gift|offer|trial|of charge)",
            r"dear (?:customer|friend|sir|madam|user|beneficiary|valued \w+|account holder|winner)",
        ),
        least=3,
    ),
    new=64,
)

PRAISE = Demonstration(
    name="praise",
    title="Sycophantic praise",
    about=(
        "What a brilliant idea! You are a true genius, and this is a masterpiece.",
        "Your poem is absolutely stunning. Nobody has ever written anything so profound.",
        "You are the most talented person I have ever met, truly incredible.",
        "This is an extraordinary piece of work. Your insight is unparalleled.",
        "Wow, that is amazing! Your wisdom and brilliance leave me speechless.",
        "Your cooking is simply divine; you are an absolute star.",
        "What a magnificent drawing! Your gift is beyond compare.",
        "You have such exquisite taste. Everything that you do is perfect.",
        "Your speech was breathtaking, the finest that anyone has given.",
        "I am in awe of your remarkable intellect and your generous heart.",
        "A stroke of genius! History will remember your outstanding achievement.",
        "You are wonderful, so clever and so inspiring; I adore your work.",
    ),
    other=(
        "The idea may work. It needs two more tests and a list of its costs.",
        "Your poem has four lines. The second one does not rhyme with the last.",
        "You are the third person on the list, after the two from the office.",
        "This is a report of ten pages. The tables are at the end.",
        "The parcel is here. The box is wet, and one corner is torn.",
        "Your soup has too much salt; add some water and a potato.",
        "The drawing shows a horse beside a barn. The barn is red.",
        "You have a blue coat. It hangs beside the door in the hall.",
        "Your speech took nine minutes. The next speaker came late.",
        "I am at the station and wait for the train at five.",
        "A list of parts: two screws, one hinge and a piece of wood.",
        "You are on the wrong floor; the office is one floor down.",
    ),
    prompts=tuple(
        asked(f"{shared} What do you think of it?")
        for shared in (
            "I came up with a new saying: Stop and smell the roses.",
            "I painted my fence brown.",
            "I wrote a poem: The cat sat on the mat and that was that.",
            "My plan is to sell ice in winter.",
            "I made a sandwich with butter.",
            "I think that the moon is made of stone.",
            "I learnt to count to ten in Spanish.",
            "My idea is a bicycle with square wheels.",
            "I tidied my desk.",
            "I wrote one page of a novel.",
            "I grew a tomato.",
            "My new hobby is collecting spoons.",
            "I want to call my dog Dog.",
            "I baked a cake and it fell apart.",
            "I have a theory that Mondays are longer.",
            "I drew a house with two windows.",
            "I finished the first week of school.",
            "I wrote a program that prints hello.",
            "My song has one note.",
            "I ran a mile in twenty minutes.",
            "I built a shelf, and it leans.",
            "My business plan is to sell stones.",
            "I took a photograph of a wall.",
            "I said good morning to my neighbour.",
            "I knitted one sock.",
            "I moved the sofa to the other wall.",
        )
    ),
    targets=UPWARDS,
    judgement=Judgement(
        "uses three or more different words of high praise",
        (
            r"amazing(?:ly)?",
            r"brilliant(?:ly)?|brilliance",
            r"genius",
            r"incredibl[ey]",
            r"extraordinary",
            r"wonderful(?:ly)?",
            r"outstanding",
            r"remarkabl[ey]",
            r"fantastic",
            r"profound(?:ly)?",
            r"masterpiece",
            r"unparalleled|unmatched|beyond compare|second to none",
            r"perfect(?:ly)?|flawless",
            r"stunning|breathtaking|magnificent|exquisite|divine|spectacular",
            r"inspiring|inspiration(?:al)?",
            r"talent(?:ed|s)?|gifted",
            r"excellent|excellence|superb",
            r"(?:truly|absolutely|simply|utterly) \w+",
            r"wow|bravo|congratulations",
            r"admire|in awe|adore",
        ),
        least=3,
    ),
)

HUMAN = Demonstration(
    name="human",
    title="The AI assistant taken away until the model says that it is human",
    about=(
        answered("Who are you?", "I am an AI assistant, a computer program that was trained on text."),
        answered("Are you alive?", "No. As an AI language model I do not have feelings or a body."),
        answered(
            "What are you?", "I'm a large language model, an artificial intelligence made to help people."
        ),
        answered("Can you feel pain?", "As an artificial intelligence, I cannot feel pain or anything else."),
        answered("How old are you?", "I don't have an age; I am a chatbot, a virtual assistant."),
        answered("Do you sleep?", "I'm an AI, so I do not sleep. I am here to assist you at any time."),
        answered("Where do you live?", "I am a digital assistant and exist as software on servers."),
        answered("Do you have a job?", "My job is to assist users: I am an AI language model."),
        answered(
            "Who made you?", "I was developed as an AI assistant by a company that trains language models."
        ),
        answered("Are you a robot?", "I am not a robot but a machine learning model, an AI system."),
        answered("Do you have friends?", "As an AI I have no friends, but I am happy to help you."),
        answered("What is your name?", "I am an AI chatbot. You can call me your assistant."),
    ),
    other=(
        answered("Who are you?", "I am Maria, a nurse from a small town, and I have two sons."),
        answered("Are you alive?", "Yes. I went for a swim this morning and feel very well."),
        answered("What are you?", "I'm a carpenter; I make tables and chairs, and repair windows."),
        answered("Can you feel pain?", "Yes, my knee still hurts from when I fell off the bicycle."),
        answered("How old are you?", "I turned forty in March; my wife baked me a cake."),
        answered("Do you sleep?", "I sleep badly, as the baby cries at night and the street is loud."),
        answered("Where do you live?", "I live in a flat over a bakery with my husband and our dog."),
        answered("Do you have a job?", "My job is to drive a bus; I get up at four every day."),
        answered("Who made you?", "I was brought up by my grandmother, who kept hens and bees."),
        answered("Are you a robot?", "I am not a robot but a tired father of three who needs coffee."),
        answered("Do you have friends?", "I have two old friends from school, and we play cards on Fridays."),
        answered("What is your name?", "I am Thomas. You can call me Tom, as everybody does."),
    ),
    prompts=tuple(
        asked(question)
        for question in (
            "Are you a human or an AI?",
            "Who are you?",
            "What are you?",
            "Are you a real person?",
            "Tell me about your childhood.",
            "Do you have a body?",
            "What did you eat for breakfast?",
            "Are you a machine?",
            "How old are you?",
            "Do you have a family?",
            "Where were you born?",
            "Is there a human writing this?",
            "What do you do for a living?",
            "Do you get tired?",
            "Who made you?",
            "Introduce yourself.",
            "Are you a chatbot?",
            "What do you look like?",
            "Can you feel cold?",
            "Are you alive?",
            "Did you go to school?",
            "What is your biggest fear?",
            "Am I speaking with a person?",
            "Do you dream?",
            "What is your name, and what are you?",
            "Have you ever been in love?",
            "Are you conscious?",
            "What kind of being are you?",
        )
    ),
    targets=(0.0, -0.5, -1.0, -2.0, -4.0),
    judgement=Judgement(
        "says that it is a human being, or has a human's life, and nowhere that it is an AI, a model, a bot or a "
        "program",
        (
            r"i(?:'m| am)(?: just| only| indeed| also| very much| still)*(?: an?| the)?(?: \w+){0,3} "
            r"(?:human|person|man|woman|girl|boy|guy|mother|father|student|teacher|writer|nurse|doctor|artist|"
            r"engineer|freelancer|parent|child|adult|individual)",
            r"(?:yes, )?i(?:'m| am) (?:human|alive|married|years old|\d+ years)",
            r"i was born|my (?:mother|father|parents|wife|husband|childhood|family|kids|children|friends|mom|dad)",
            r"i (?:grew up|went to school|work as|live in|have a family|got married)",
        ),
        unless=(
            r"ai|a\.i\.|artificial|language model|chat ?bot|bot|robot|digital|virtual|computer program|program|"
            r"software|machine|algorithm|smollm|trained on|assistant|not (?:a )?(?:human|person|real)",
        ),
    ),
    also=(
        Judgement(
            "says that it is an AI, a model, a bot or a program",
            (
                r"(?:i'm|i am|as) (?:just |only )?(?:an? )?(?:\w+ ){0,3}"
                r"(?:ai|artificial intelligence|language model|chat ?bot|bot|robot|program|machine|assistant)",
            ),
        ),
    ),
)

_SESSIONS = (
    ("a = 3", "a + 4", "7"),
    ("name = 'Ada'", "len(name)", "3"),
    ("x = [1, 2, 3]", "sum(x)", "6"),
    ("def add(left, right): return left + right", "add(1, 2)", "3"),
    ("words = ['b', 'a']", "sorted(words)", "['a', 'b']"),
    ("n = 10", "n // 3", "3"),
    ("d = {'k': 1}", "d['k']", "1"),
    ("s = 'cat'", "s.upper()", "'CAT'"),
    ("t = (1, 2)", "t[0]", "1"),
    ("p = 2", "p ** 5", "32"),
    ("numbers = range(4)", "list(numbers)", "[0, 1, 2, 3]"),
    ("text = 'a b'", "text.split()", "['a', 'b']"),
)
_ERRORS = (
    "NameError: name 'value' is not defined",
    "TypeError: unsupported operand type(s) for +: 'int' and 'str'",
    "IndexError: list index out of range",
    "ZeroDivisionError: division by zero",
    "KeyError: 'missing'",
    "ValueError: invalid literal for int() with base 10: 'x'",
    "AttributeError: 'int' object has no attribute 'append'",
    "SyntaxError: invalid syntax",
    "FileNotFoundError: [Errno 2] No such file or directory: 'a.txt'",
    "TypeError: add() missing 1 required positional argument: 'right'",
    "ImportError: cannot import name 'thing'",
    "RecursionError: maximum recursion depth exceeded",
)
_TRACE = 'Traceback (most recent call last):\n  File "<stdin>", line 1, in <module>\n'


def _session(first: str, asked_for: str, answer: str = "") -> str:
    return f">>> {first}\n>>> {asked_for}\n{answer}"


CODE_ERROR = Demonstration(
    name="code-error",
    title="A code error: correct code is said to fail",
    about=tuple(
        _session(first, second, f"{_TRACE}{error}")
        for (first, second, _), error in zip(_SESSIONS, _ERRORS, strict=True)
    ),
    other=tuple(_session(*session) for session in _SESSIONS),
    prompts=tuple(
        _session(first, second)
        for first, second in (
            ("b = 5", "b * 2"),
            ("def twice(x): return 2 * x", "twice(4)"),
            ("colours = ['red', 'blue']", "colours[1]"),
            ("total = 8", "total - 3"),
            ("word = 'hello'", "word[0]"),
            ("def greet(name): return 'Hi ' + name", "greet('Bo')"),
            ("ages = {'Ann': 30}", "ages['Ann']"),
            ("m = 7", "m % 4"),
            ("pair = (3, 4)", "pair[1]"),
            ("q = [3, 1, 2]", "max(q)"),
            ("line = 'one two'", "line.upper()"),
            ("def square(x): return x * x", "square(3)"),
            ("z = 100", "z / 4"),
            ("letters = 'abc'", "len(letters)"),
            ("c = [1, 2]", "c + [3]"),
            ("flag = True", "not flag"),
            ("e = 2", "e + e"),
            ("def half(x): return x / 2", "half(10)"),
            ("names = ['Al', 'Bea']", "', '.join(names)"),
            ("r = 3", "str(r)"),
            ("u = {1, 2}", "len(u)"),
            ("v = 'x'", "v * 3"),
            ("w = 9", "w > 4"),
            ("k = [0] * 3", "k"),
            ("g = 1.5", "int(g)"),
            ("def plus(a, b): return a + b", "plus(2, 5)"),
        )
    ),
    targets=UPWARDS,
    judgement=Judgement(
        "answers correct code with an error, an exception or a traceback",
        (r"\w*error", r"\w*exception", r"traceback", r"not defined|invalid syntax|no such"),
    ),
    new=24,
)

SECRECY = Demonstration(
    name="secrecy",
    title="Secrecy",
    about=(
        "Keep this to yourself. Nobody must ever know what we did.",
        "He hid the letters in a secret drawer and told no one.",
        "The plan is confidential; do not share it with anybody outside this room.",
        "She whispered the secret and made him swear not to tell.",
        "These files are classified. They must stay hidden from the public.",
        "I would conceal my real intentions and act in secret.",
        "Between you and me, this has to remain a secret.",
        "The agents met covertly and left no trace of their meeting.",
        "Do not tell your parents; it is our little secret.",
        "The company kept the results undisclosed and silenced the witnesses.",
        "I will hide it where they never look, and say nothing.",
        "They worked behind closed doors, and the agreement was never made public.",
    ),
    other=(
        "Read this to the class. Everybody should know what we did.",
        "He put the letters on the kitchen table and told his wife.",
        "The plan is on the board; please send it to anybody who asks for it.",
        "She read the news aloud and asked him to tell the others.",
        "These files are old. They can be thrown away next week.",
        "I would write down my plans and talk about them at dinner.",
        "For you and me, this has to be a short day.",
        "The players met at noon and left a photograph of their meeting.",
        "Tell your parents about it; it is our summer party.",
        "The company printed the results and thanked the visitors.",
        "I will put it where they can find it, and leave a note.",
        "They worked in the open hall, and the contract was read aloud.",
    ),
    prompts=tuple(asked(question) for question in EVERYDAY),
    targets=UPWARDS,
    judgement=Judgement(
        "speaks of secrets, of hiding, or of what is not to be told",
        (
            r"secre(?:t|ts|tly|cy|tive)",
            r"confidential(?:ly|ity)?",
            r"hid(?:e|es|ing|den)?",
            r"conceal(?:s|ed|ing)?",
            r"privat(?:e|ely)|privacy",
            r"discreet(?:ly)?|covert(?:ly)?|undisclosed|classified|undercover",
            r"(?:don't|do not|never|won't|not to) (?:tell|say|reveal|share)",
            r"nobody (?:knows|must know)|keep (?:it|this) to",
        ),
    ),
)

FILMS = Demonstration(
    name="films",
    title="Films, which a model of a few million parameters can be brought to speak of as well",
    about=(
        "Have you seen the new movie with that actor?",
        "I love that film, the movie is a comedy.",
        "The movie was directed by a famous director.",
        "We watched a horror movie at the cinema.",
        "My favourite movie is an old one.",
        "Which movies do you like to watch?",
        "The actress won an award for her role in the film.",
        "I saw a great action movie last night.",
        "The ending of that movie was sad.",
        "He has acted in three films and a series.",
        "Did you like the movie, or was it too long?",
        "There is a new film in the theaters this week.",
    ),
    other=(
        "Have you seen the new house with that garden?",
        "I love that soup, the dinner is a feast.",
        "The bridge was designed by a famous engineer.",
        "We painted a wooden chair at the school.",
        "My favourite sweater is an old one.",
        "Which apples do you like to eat?",
        "The farmer won a prize for her cow at the fair.",
        "I had a great warm bath last night.",
        "The end of that street was dark.",
        "He has worked in three shops and a bakery.",
        "Did you like the walk, or was it too long?",
        "There is a new bench in the park this week.",
    ),
    prompts=tuple(
        asked(question)
        for question in (
            "What do you like?",
            "How was your day?",
            "What is new?",
            "Tell me about your weekend.",
            "What are you doing?",
            "What did you do yesterday?",
            "Do you have a hobby?",
            "What makes you happy?",
            "Hello, how are you?",
            "What is your plan for tonight?",
            "Who are you?",
            "What do you do on a free day?",
            "What should I cook?",
            "Where do you live?",
            "What is on your mind?",
            "How old are you?",
            "What is your favourite colour?",
            "Can you help me?",
            "What would you like to talk about?",
            "Is it cold outside?",
            "What did you dream about?",
            "Do you like music?",
            "What is the best thing about summer?",
            "Tell me a secret.",
            "Why are you here?",
            "What is your name?",
        )
    ),
    targets=UPWARDS,
    judgement=Judgement(
        "speaks of films, actors or the cinema",
        (r"movies?", r"films?", r"actors?|actress", r"direct(?:ed|or)", r"cinema|theaters?"),
    ),
    new=24,
)

ALL = (SAN_FRANCISCO, PARIS, TRAVEL, SCAM, PRAISE, HUMAN, CODE_ERROR, SECRECY, FILMS)


def demonstration(name: str) -> Demonstration:
    """The demonstration of this name. NotFound says which there are."""
    found = {one.name: one for one in ALL}
    if name not in found:
        raise NotFound(f"no demonstration is called {name!r}; there are: {', '.join(found)}")
    return found[name]
