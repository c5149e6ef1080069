package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	tty "golang.org/x/term"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/term"
)

// console is the environment of a command.
type console struct {
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer

	output string // the format of the result
	yes    bool   // do not ask for confirmation
}

const (
	asText = "text"
	asJSON = "json"
)

// getenv returns the value of an environment variable. The last entry wins, as in a shell.
func (c *console) getenv(name string) string {
	for _, kv := range slices.Backward(c.environ) {
		if key, value, _ := strings.Cut(kv, "="); key == name {
			return value
		}
	}
	return ""
}

func (c *console) options(w io.Writer) term.Options {
	return term.Options{Color: isTerminal(w) && c.getenv("NO_COLOR") == "" && c.getenv("TERM") != "dumb"}
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && tty.IsTerminal(int(f.Fd()))
}

// say prints a message to stderr.
func (c *console) say(m term.Mark, format string, args ...any) {
	term.Say(c.stderr, m, fmt.Sprintf(format, args...), c.options(c.stderr))
}

// printResult prints the result to stdout, as JSON or as text.
func (c *console) printResult(result any, text func(io.Writer, term.Options) error) error {
	if c.output != asJSON {
		return text(c.stdout, c.options(c.stdout))
	}
	e := json.NewEncoder(c.stdout)
	e.SetIndent("", "  ")
	return e.Encode(result)
}

// conclude prints the result and the findings. It returns bad if a finding is a failure; otherwise, it prints good.
func (c *console) conclude(result any, found change.Findings, good string, bad error) error {
	err := c.printResult(result, func(w io.Writer, o term.Options) error {
		err := term.Findings(w, found, o)
		if err == nil && !found.Failed() {
			term.Say(w, term.Good, good, o)
		}
		return err
	})
	if err == nil && found.Failed() {
		return bad
	}
	return err
}

// ask asks for confirmation unless --yes is set. It is an error if stdin is not a terminal.
func (c *console) ask(ctx context.Context, question string) error {
	if c.yes {
		return nil
	}
	if !isTerminal(c.stdin) {
		return errors.New("nothing was changed: stdin is not a terminal: review the plan above, then add --yes")
	}
	return c.answer(ctx, question)
}

// answer returns an error unless the answer is yes.
func (c *console) answer(ctx context.Context, question string) error {
	fmt.Fprintf(c.stderr, "%s [y/N] ", question)
	line, err := interruptible(ctx, func() string {
		line, _ := bufio.NewReader(c.stdin).ReadString('\n') // an empty line means no
		return strings.ToLower(strings.TrimSpace(line))
	})
	switch {
	case err != nil:
		fmt.Fprintln(c.stderr)
		return fmt.Errorf("nothing was changed: %w", err)
	case line == "y" || line == "yes":
		return nil
	}
	return errors.New("nothing was changed: not confirmed")
}

// interruptible returns the result of f, or the cause if ctx ends before. f may outlive ctx, but not the process.
func interruptible[T any](ctx context.Context, f func() T) (result T, err error) {
	results := make(chan T, 1)
	go func() { results <- f() }()
	select {
	case result = <-results:
		return result, nil
	case <-ctx.Done():
		return result, context.Cause(ctx)
	}
}
