"""What a benchmark aims for, and whether it got there."""


class Aims:
    def __init__(self):
        self.found = []  # (whether it holds, what was measured and wanted)

    def at_most(self, what, got, bound, unit=""):
        self.found.append((got <= bound, f"{what}: {got:.3g}{unit}, wanted at most {bound:.3g}{unit}"))

    def at_least(self, what, got, bound):
        self.found.append((got >= bound, f"{what}: {got:.3g}, wanted at least {bound:.3g}"))

    def close(self):
        """Prints all, the missed ones first. The exit code."""
        print()
        for held, text in sorted(self.found, key=lambda one: one[0]):
            print(f"{'reached' if held else 'MISSED ':<8} {text}")
        return 0 if all(held for held, _ in self.found) else 1
