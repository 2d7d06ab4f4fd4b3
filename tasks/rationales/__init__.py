"""Ask for reasons, judge them, and measure how varied they are."""
