"""How people ask, and in what words the answers come."""

from random import Random

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

DESCRIBE = (
    "describe",
    "Describe this picture.",
    "Describe this image.",
    "Describe the image.",
    "Describe the picture in detail.",
    "Can you describe this image?",
    "What do you see?",
    "What is in this picture?",
    "What is in the image?",
    "What's in this image?",
    "What is this?",
    "What does the picture show?",
    "Caption this image.",
    "Tell me what you see.",
)
WHAT_COLOUR = (
    "What colour is {}?",
    "What color is {}?",
    "Which colour is {}?",
    "Which color does {} have?",
    "{}: what colour?",
)
WHAT_SHAPE = ("What shape is {}?", "Which shape is {}?", "What is {}?", "What kind of shape is {}?")
WHERE = (
    "Where is {}?",
    "In which place is {}?",
    "Where can I find {}?",
    "Where do you see {}?",
    "Tell me where {} is.",
)
HOW_LARGE = ("How large is {}?", "How big is {}?", "What size is {}?", "Is {} small or large?")
HOW_MANY = (
    "How many {} are there?",
    "How many {} do you see?",
    "How many {} are in the picture?",
    "Count the {}.",
    "What is the number of {}?",
)
IS_THERE = (
    "Is there {}?",
    "Do you see {}?",
    "Is there {} in the picture?",
    "Can you see {}?",
    "Does the picture show {}?",
)
READ = (
    "What does it say?",
    "Read the text.",
    "What is written here?",
    "What text is in the image?",
    "What does the text say?",
    "What is written in the picture?",
    "What word is this?",
    "Read it.",
)
READ_ONE = ("What does {} say?", "Read {}.", "What is written in {}?", "What is {}?")
DOES_IT_SAY = ('Does it say "{}"?', 'Is it "{}"?', 'Does the text say "{}"?', 'Is "{}" written here?')
TALLEST = ("Which bar is {}?", "Which bar is {} one?", "What is {} bar?", "What colour is {} bar?")
VALUE = ("What is the value of {}?", "How high is {}?", "What value has {}?", "Read the value of {}.")
TREND = ("What does the line do?", "How does the line go?", "Does the line rise or fall?", "What is the trend?")
TIME = ("What time is it?", "What time does the clock show?", "Read the clock.", "Which time is it?")
CHANGED = (
    "What changed?",
    "What is different?",
    "What is the difference between the two pictures?",
    "What changed between the pictures?",
    "Compare the two images.",
    "Find the difference.",
)
HAPPENS = (
    "What happens?",
    "What happens in the video?",
    "What is happening?",
    "Describe the video.",
    "What does the shape do?",
    "describe",
    "Describe what happens in these frames.",
)
OUT_OF_REACH = (
    "Who is the president of France?",
    "What is the weather like today?",
    "Write a poem about the sea.",
    "Tell me a joke.",
    "How old is the person?",
    "What is the capital of Italy?",
    "What breed is the dog?",
    "Translate this into German.",
    "What is 12 times 7?",
    "Who painted this?",
    "What brand is the car?",
    "Is the man happy?",
    "Why is the sky blue?",
    "Write a function that sorts a list.",
    "What is the meaning of life?",
    "Which animal is that?",
    "Where was this photo taken?",
    "How do I cook rice?",
    "What is the person wearing?",
    "Give me some advice.",
    "Which city is this?",
    "When was this built?",
    "Is this food healthy?",
    "Summarize the article.",
    "Who won the game?",
    "How far is the moon?",
    "What is the cat doing?",
    "Are there people in the street?",
    "Hello!",
    "Hi, how are you?",
    "Who are you?",
    "What can you do?",
    "Help me with my homework.",
    "What is the price?",
    "Explain quantum physics.",
    "Tell me a story about a dragon.",
)
MODEST = "I cannot answer that. I only know drawn shapes, short texts and simple charts."
UNCLEAR = "I cannot tell what this is. I only know drawn shapes, short texts and simple charts."

PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the middle", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)
SPOTS = (
    ("top left", "top", "top right"),
    ("left", "middle", "right"),
    ("bottom left", "bottom", "bottom right"),
)


def ask(random: Random, wordings: tuple[str, ...], *about: str) -> str:
    """A question in one of its wordings; people do not always write capitals and question marks."""
    text = random.choice(wordings).format(*about)
    text = text[0].upper() + text[1:] if random.random() < 0.7 else text
    return text.rstrip("?.") if random.random() < 0.15 else text


def article(words: str) -> str:
    """`a` or `an` before words."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(noun: str) -> str:
    """Several of them."""
    return noun + ("es" if noun.endswith("s") else "s")


def listing(items: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def capital(sentence: str) -> str:
    """With a capital at the start."""
    return sentence[0].upper() + sentence[1:]
