#!/usr/bin/env python3
"""Extrapolation schemes on top of grouped sweeps, compared by passes over the data.

A prototype in numpy of docs/method.md, in double precision, small enough to try a scheme in minutes:
docs/acceleration.md quotes what it prints. Needs numpy, nothing else.

    python3 compare.py [--seeds 2] [--sweeps 100] [--schemes nesterov,ogm] [--quick]
"""

import argparse
import time
import warnings

import numpy as np

EPSILON = 1e-16  # the factor floor, relative to the largest entry
LOSSES = [(1, 0), (1, 1), (0.7, 0), (1.3, 1), (1, -0.5), (0.5, 0.5), (-1, 2), (2, -1)]
# The factors and the product's letters of two groups, and the sizes.
MODELS = {
    "nmf": ((["ir"], "ir"), (["jr"], "jr"), dict(i=60, j=50, r=8)),
    "cp": ((["ir", "jr"], "ijr"), (["kr"], "kr"), dict(i=24, j=20, k=18, r=6)),
    "cp4": ((["ir", "jr"], "ijr"), (["kr", "lr"], "klr"), dict(i=12, j=10, k=9, l=11, r=5)),
    "spatial": ((["wr", "hr"], "whr"), (["ikr", "jkr"], "ijr"),
                dict(w=10, h=12, i=9, j=8, k=3, r=5)),
    "train": ((["ia", "ajb"], "ijb"), (["kb"], "kb"), dict(i=20, j=18, k=16, a=4, b=5)),
    "tucker": ((["ia", "jb", "kc"], "ijkabc"), (["abc"], "abc"),
               dict(i=20, j=18, k=16, a=4, b=4, c=4)),
}


class Problem:
    """Two groups of factors: Ŷ = U Vᵀ, U and V being the groups' products."""

    def __init__(self, name, seed, alpha, beta):
        first, second, sizes = MODELS[name]
        self.groups, self.alpha, self.beta = (first, second), alpha, beta
        self.inner = len(set(first[1]) & set(second[1]))
        q, p = alpha + beta - 1, beta - 1
        if alpha > 0:
            self.p_a, self.p_b = (p if p <= 0 else 0), (q if q >= 0 else 0)
        else:
            self.p_a, self.p_b = (p if p >= 0 else 0), (q if q <= 0 else 0)
        self.passes = 0
        random = np.random.default_rng(seed)

        def draw(make):
            return [[make([sizes[c] for c in f]) for f in g[0]] for g in self.groups]

        truth = draw(lambda shape: random.gamma(0.5, 1, shape))
        mean = self.predict(truth)
        self.y = random.poisson(3 * mean / mean.mean()).astype(float)
        if alpha <= 0 or alpha + beta <= 0:
            self.y += 0.1
        self.floor = self.y.mean() * 1e-10
        self.start = draw(lambda shape: random.random(shape) + 0.05)
        self.start[0][0] *= self.y.mean() / self.predict(self.start).mean()

    def product(self, group, x):
        factors, out = self.groups[group]
        tensor = np.einsum(",".join(factors) + "->" + out, *x[group], optimize=True)
        return tensor.shape, tensor.reshape(-1, int(np.prod(tensor.shape[-self.inner:])))

    def predict(self, x):
        return self.product(0, x)[1] @ self.product(1, x)[1].T

    def run_pass(self, group, x):
        """Numerator and denominator of a group, and the loss."""
        self.passes += 1
        (shape_u, u), (shape_v, v) = self.product(0, x), self.product(1, x)
        y, alpha, beta = self.y, self.alpha, self.beta
        predicted = np.maximum(u @ v.T, self.floor)
        a = y**alpha * predicted ** (beta - 1)
        b = predicted ** (alpha + beta - 1)
        if beta == 0:
            log = np.where(y > 0, np.log(np.maximum(y, 1e-300) / predicted), 0)
            loss = (predicted**alpha - y**alpha + alpha * y**alpha * log).sum() / alpha**2
        else:
            total = alpha + beta
            loss = (y**total / (beta * total) + b * predicted / (alpha * total)
                    - a * predicted / (alpha * beta)).sum()
        if group == 0:
            return (a @ v).reshape(shape_u), (b @ v).reshape(shape_u), loss
        return (a.T @ u).reshape(shape_v), (b.T @ u).reshape(shape_v), loss

    def update(self, group, x, numerator, denominator, cycles=1):
        factors, out = self.groups[group]
        old, change = x[group], [np.ones_like(f) for f in x[group]]
        for at, letters in [*enumerate(factors)] * (cycles if len(factors) > 1 else 1):
            others = [m for m in range(len(factors)) if m != at]

            def onto(tensor, p):
                terms = [tensor] + [old[m] * change[m] ** (1 + p) for m in others]
                text = ",".join([out] + [factors[m] for m in others]) + "->" + letters
                return np.einsum(text, *terms, optimize=True)

            above, below = onto(numerator, self.p_a), onto(denominator, self.p_b)
            step = (above / below) ** (1 / (self.p_b - self.p_a))
            step = np.where((above == 0) & (below == 0), 1, step)
            change[at] = np.clip(np.nan_to_num(step, nan=1), 1e-6, 1e6)
        moved = list(x)
        moved[group] = [f * c for f, c in zip(old, change)]
        return raised(moved)


def raised(x):
    return [[np.maximum(f, EPSILON * f.max()) for f in g] for g in x]


def flat(x):
    return np.concatenate([f.ravel() for g in x for f in g])


def shaped(vector, like):
    parts, at = [], 0
    for group in like:
        parts.append([])
        for f in group:
            parts[-1].append(vector[at:at + f.size].reshape(f.shape))
            at += f.size
    return parts


class Plain:
    """Grouped sweeps alone, with so many cycles over the factors of a group after its pass."""

    cycles = 1

    def begin(self, x):
        pass

    def next(self, x, p):
        return None

    def reject(self):
        pass


class Weights(Plain):
    """P ⊙ (P/C)^w ⊙ (P/X)^v, with Nesterov's w; v is a share of the optimized gradient method's
    weight, or constant. After a rejection `left` of t remains."""

    def __init__(self, share=0.0, constant=0.0, left=0.0, cycles=1):
        self.share, self.constant, self.left, self.cycles = share, constant, left, cycles

    def begin(self, x):
        self.c, self.t = flat(x), 1.0

    def next(self, x, p):
        t = (1 + (1 + 4 * self.t**2) ** 0.5) / 2
        w, v = min((self.t - 1) / t, 0.99), self.share * self.t / t + self.constant
        plain = flat(p)
        moved = plain * (plain / self.c) ** w * (plain / flat(x)) ** v
        self.t, self.c = t, plain
        return shaped(moved, p) if w + v > 0 else None

    def reject(self):
        self.t = max(1.0, self.left * self.t)


class Gentle(Weights):
    """As `Weights` with all of the optimized gradient method's weight, but after some plain sweeps, and
    an entry is multiplied with e^-first at least up to some sweep, with e^-then at least from there."""

    def __init__(self, plain=5, first=0.1, until=12, then=0.4):
        super().__init__(share=1.0, left=0.5)
        self.plain, self.until = plain, until
        self.first, self.then = np.exp(-first), np.exp(-then)

    def begin(self, x):
        super().begin(x)
        self.sweeps = 0

    def next(self, x, p):
        self.sweeps += 1
        plain = flat(p)
        if self.sweeps <= self.plain:
            self.c = plain
            return None
        least = self.first if self.sweeps <= self.until else self.then
        change = flat(super().next(x, p)) / plain
        return shaped(plain * np.maximum(change, least), p)


class Groups(Plain):
    """As `Weights` with all of the optimized gradient method's weight, but with a t for each group,
    which is halved too where the group's sweep went against its momentum (the gradient test of
    O'Donoghue & Candès 2015, group by group)."""

    def begin(self, x):
        self.c, self.t = [flat([g]) for g in x], [1.0] * len(x)

    def next(self, x, p):
        moved = []
        for at, group in enumerate(p):
            plain, begun, before = flat([group]), flat([x[at]]), self.c[at]
            if np.log(begun / plain) @ np.log(plain / before) > 0:
                self.t[at] = max(1.0, 0.5 * self.t[at])
            t = (1 + (1 + 4 * self.t[at] ** 2) ** 0.5) / 2
            w, v = min((self.t[at] - 1) / t, 0.99), self.t[at] / t
            moved.append(plain * (plain / before) ** w * (plain / begun) ** v)
            self.t[at], self.c[at] = t, plain
        return shaped(np.concatenate(moved), p)

    def reject(self):
        self.t = [max(1.0, 0.5 * t) for t in self.t]


class Adaptive(Plain):
    """A weight that grows while it is accepted and shrinks where it is not (Ang & Gillis 2019)."""

    def begin(self, x):
        self.c, self.w, self.most, self.before = flat(x), 0.5, 1.0, 0.5

    def next(self, x, p):
        plain = flat(p)
        moved = plain * (plain / self.c) ** self.w
        self.c, self.before = plain, self.w
        self.w, self.most = min(self.most, 1.05 * self.w), min(10, 1.01 * self.most)
        return shaped(moved, p)

    def reject(self):
        self.most, self.w = self.before, self.before / 1.5


class Anderson(Plain):
    """Anderson acceleration of depth m in log space."""

    def __init__(self, m):
        self.m = m

    def begin(self, x):
        self.points, self.images = [], []

    def next(self, x, p):
        self.points = (self.points + [np.log(flat(x))])[-self.m - 1:]
        self.images = (self.images + [np.log(flat(p))])[-self.m - 1:]
        if len(self.points) < 2:
            return None
        steps = [g - x for g, x in zip(self.images, self.points)]
        d_steps = np.diff(np.stack(steps), axis=0).T
        d_images = np.diff(np.stack(self.images), axis=0).T
        normal = d_steps.T @ d_steps
        normal += 1e-8 * np.trace(normal) * np.eye(len(normal))
        mix = np.linalg.solve(normal, d_steps.T @ steps[-1])
        return shaped(np.exp(self.images[-1] - np.clip(d_images @ mix, -5, 5)), p)

    def reject(self):
        self.points, self.images = [], []


class Squarem(Plain):
    """SQUAREM (Varadhan & Roland 2008) in log space, every second sweep."""

    def begin(self, x):
        self.x0 = None

    def next(self, x, p):
        if self.x0 is None:
            self.x0, self.x1 = np.log(flat(x)), np.log(flat(p))
            return None
        x2 = np.log(flat(p))
        r, v = self.x1 - self.x0, x2 - 2 * self.x1 + self.x0
        length = max(1.0, np.sqrt((r @ r) / max(v @ v, 1e-300)))
        moved = self.x0 + 2 * length * r + length**2 * v
        self.x0 = None
        return shaped(np.exp(np.clip(moved, x2 - 5, x2 + 5)), p)

    def reject(self):
        self.x0 = None


SCHEMES = {
    "plain": Plain,
    "nesterov": Weights,
    "nesterov-half": lambda: Weights(left=0.5),
    "relaxed-0.6": lambda: Weights(constant=0.6, left=0.5),
    "relaxed-0.9": lambda: Weights(constant=0.9, left=0.5),
    "ogm-0.5": lambda: Weights(share=0.5, left=0.5),
    "ogm": lambda: Weights(share=1.0, left=0.5),
    "ogm-gentle": Gentle,
    "ogm-groups": Groups,
    "ogm-2-cycles": lambda: Weights(share=1.0, left=0.5, cycles=2),
    "ogm-4-cycles": lambda: Weights(share=1.0, left=0.5, cycles=4),
    "adaptive": Adaptive,
    "squarem": Squarem,
    "anderson-3": lambda: Anderson(3),
    "anderson-8": lambda: Anderson(8),
}


def run(problem, scheme, sweeps):
    """(loss, passes so far, seconds so far) at every accepted point, and the number of rejections."""
    x = plain = problem.start
    scheme.begin(x)
    history, middle, extrapolated, rejected, problem.passes = [], None, False, 0, 0
    began = time.perf_counter()
    for _ in range(sweeps + 1):
        n, d, loss = problem.run_pass(0, x)
        if extrapolated and not loss <= middle:
            scheme.reject()
            rejected += 1
            x = plain
            n, d, loss = problem.run_pass(0, x)
        history.append((loss, problem.passes, time.perf_counter() - began))
        plain = problem.update(0, x, n, d, scheme.cycles)
        n, d, middle = problem.run_pass(1, plain)
        plain = problem.update(1, plain, n, d, scheme.cycles)
        moved = scheme.next(x, plain)
        extrapolated = moved is not None
        x = raised(moved) if extrapolated else plain
    return history, rejected


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sweeps", type=int, default=100)
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    parser.add_argument("--quick", action="store_true", help="two models, two losses, one seed")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    names = options.schemes.split(",")
    models, losses, seeds = list(MODELS), LOSSES, options.seeds
    if options.quick:
        models, losses, seeds = ["nmf", "spatial"], [(1, 0), (0.7, 0)], 1
    found = {name: [] for name in names}
    for model in models:
        for loss in losses:
            for seed in range(seeds):
                problem = Problem(model, seed, *loss)
                goal, _, seconds = run(problem, Plain(), options.sweeps)[0][-1]
                for name in names:
                    history, rejected = run(problem, SCHEMES[name](), options.sweeps)
                    hit = next((i for i, (f, *_) in enumerate(history) if f <= goal * (1 + 1e-12)), None)
                    passes = history[hit][1] if hit is not None else np.inf
                    sweeps = hit if hit is not None else np.inf
                    time_spent = history[hit][2] / seconds if hit is not None else np.inf
                    found[name].append((sweeps, passes, rejected, model, loss, time_spent))
    count = len(found[names[0]])
    print(f"{count} problems; to the loss of {options.sweeps} grouped sweeps\n")
    print("| scheme | sweeps, median | passes, median | passes, worst | not reached | rejected, mean "
          "| seconds of the grouped sweeps, median |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in names:
        rows = found[name]
        passes = np.array([r[1] for r in rows])
        missed = int(np.isinf(passes).sum())
        worst = "—" if missed else f"{passes.max():.0f}"
        print(f"| {name} | {np.median([r[0] for r in rows]):.1f} | {np.median(passes):.1f} | {worst} "
              f"| {missed} | {np.mean([r[2] for r in rows]):.1f} "
              f"| {np.median([r[5] for r in rows]):.2f} |")
    print("\nMedian passes by loss (alpha, beta) and model:\n")
    keys = [("loss", 4, l) for l in losses] + [("model", 3, m) for m in models]
    print("| | " + " | ".join(str(k[2]) for k in keys) + " |")
    print("| --- |" + " ---: |" * len(keys))
    for name in names:
        cells = [np.median([r[1] for r in found[name] if r[at] == key]) for _, at, key in keys]
        print(f"| {name} | " + " | ".join(f"{c:.0f}" for c in cells) + " |")


if __name__ == "__main__":
    main()
