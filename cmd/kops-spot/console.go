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

	"github.com/castai/kops-spot/internal/term"
)

// console is all that a command has of the world around it.
type console struct {
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
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

// result is what the command was run for.
func (c *console) result(m term.Mark, format string, args ...any) {
	term.Say(c.stdout, m, fmt.Sprintf(format, args...), options(c.environ, c.stdout))
}

// json is what the command was run for, for a program to read.
func (c *console) json(result any) error {
	e := json.NewEncoder(c.stdout)
	e.SetIndent("", "  ")
	return e.Encode(result)
}

// checkForm refuses a form that no command has for its result.
func checkForm(output string) error {
	if output != asText && output != asJSON {
		return fmt.Errorf("--output %s: it is %s or %s", output, asText, asJSON)
	}
	return nil
}

func options(environ []string, w io.Writer) term.Options {
	return term.Options{Color: isTerminal(w) && lookup(environ, "NO_COLOR") == "" && lookup(environ, "TERM") != "dumb"}
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && tty.IsTerminal(int(f.Fd()))
}

// ask wants a yes to a question; yes says that it has been given before. Where there is nobody to ask, that is a no.
func (c *console) ask(ctx context.Context, question string, yes bool) error {
	if yes {
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
