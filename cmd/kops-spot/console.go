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

	"github.com/spf13/pflag"
	tty "golang.org/x/term"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/term"
)

// console is all that a command has of the world around it.
type console struct {
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer

	output string // the form of the result
	yes    bool   // to the question that a command asks before it changes something
}

func (c *console) getenv(name string) string { return lookup(c.environ, name) }

// lookup is the value of a variable in an environment; as for the shell, the last one counts.
func lookup(environ []string, name string) string {
	for _, kv := range slices.Backward(environ) {
		if key, value, _ := strings.Cut(kv, "="); key == name {
			return value
		}
	}
	return ""
}

// say is for the reader, not for a program that reads the results.
func (c *console) say(m term.Mark, format string, args ...any) {
	term.Say(c.stderr, m, fmt.Sprintf(format, args...), options(c.environ, c.stderr))
}

// tell is what the command was run for, in the form that was asked for: for a program to read, or as text has it.
func (c *console) tell(result any, text func(io.Writer, term.Options) error) error {
	if c.output != asJSON {
		return text(c.stdout, options(c.environ, c.stdout))
	}
	e := json.NewEncoder(c.stdout)
	e.SetIndent("", "  ")
	return e.Encode(result)
}

// conclude tells a result and what was found in the end. If all of that is well it is good; else the command fails with
// bad.
func (c *console) conclude(result any, found change.Findings, good string, bad error) error {
	err := c.tell(result, func(w io.Writer, o term.Options) error {
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

// The forms of a result.
const (
	asText = "text"
	asJSON = "json"
)

func options(environ []string, w io.Writer) term.Options {
	return term.Options{Color: isTerminal(w) && lookup(environ, "NO_COLOR") == "" && lookup(environ, "TERM") != "dumb"}
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && tty.IsTerminal(int(f.Fd()))
}

// yesFlag is of the commands that ask.
func (c *console) yesFlag(f *pflag.FlagSet) {
	f.BoolVarP(&c.yes, "yes", "y", false, "do not ask: for scripts")
}

// ask wants a yes to a question, if it has not been given before. Where there is nobody to ask, that is a no.
func (c *console) ask(ctx context.Context, question string) error {
	if c.yes {
		return nil
	}
	if !isTerminal(c.stdin) {
		return errors.New("nothing was changed: there is no terminal to ask at: read what is said above, and if it is right, add --yes")
	}
	return c.answer(ctx, question)
}

// answer is an error unless the answer is yes.
func (c *console) answer(ctx context.Context, question string) error {
	fmt.Fprintf(c.stderr, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() { // left behind when ctx ends: the process ends then too
		line, _ := bufio.NewReader(c.stdin).ReadString('\n') // nothing is a no
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case said := <-answer:
		if said == "y" || said == "yes" {
			return nil
		}
		return errors.New("nothing was changed: the answer was no")
	case <-ctx.Done():
		fmt.Fprintln(c.stderr)
		return fmt.Errorf("nothing was changed: %w", context.Cause(ctx))
	}
}
