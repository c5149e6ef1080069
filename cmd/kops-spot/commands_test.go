package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commands returns the commands below root that do something, without cobra's one for each shell.
func commands(root *cobra.Command) (all []*cobra.Command) {
	for _, cmd := range root.Commands() {
		if cmd.Runnable() || cmd.Name() == "completion" {
			all = append(all, cmd)
		}
		if cmd.Name() != "completion" {
			all = append(all, commands(cmd)...)
		}
	}
	return all
}

func newTestRoot() *cobra.Command {
	root := newRoot(&console{})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

// selecting are the flags that select the cluster.
var selecting = []string{"cluster", "context", "kubeconfig", "region", "state"}

// TestFlagsMeanTheSame checks that a flag means the same in every command, and that every command that connects to the
// cluster has the flags that select it.
func TestFlagsMeanTheSame(t *testing.T) {
	// As in sam local invoke, --event is a file. The kinds, and the default of --since, depend on the command.
	exceptions := []string{"invoke --event", "invoke --yes", "rehearse --event", "report --since"}
	offline := []string{"completion", "help", "version"}
	flags := map[string]string{ // beyond the kubeconfig's
		"check": "region state", "connect": "region state", "grant": "region state", "install": "region state",
		"offboard": "region", "onboard": "region state", "report": "region", "savings": "region", "status": "region", "uninstall": "region",
	}
	first := map[string]string{}
	for _, cmd := range commands(newTestRoot()) {
		name := strings.TrimPrefix(cmd.CommandPath(), "kops-spot ")
		var got []string
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if slices.Contains(selecting, f.Name) {
				got = append(got, f.Name)
			}
			if f.Name == "help" || slices.Contains(exceptions, name+" --"+f.Name) {
				return
			}
			usage, _, _ := strings.Cut(f.Usage, "; requires --") // here
			is := fmt.Sprintf("%q, short %q, default %q", usage, f.Shorthand, f.DefValue)
			if other, found := first[f.Name]; found && other != is {
				t.Errorf("--%s of %s: %s; of another command: %s", f.Name, name, is, other)
			}
			first[f.Name] = is
		})
		want := "cluster context kubeconfig " + flags[name]
		if slices.Contains(offline, name) {
			want = ""
		}
		if got := strings.Join(got, " "); got != strings.TrimSpace(want) {
			t.Errorf("%s has the flags %q, want %q", name, got, want)
		}
	}
	if len(first) < 20 {
		t.Errorf("found %d flags", len(first))
	}
}

var update = flag.Bool("update", false, "write docs/cli/README.md instead of comparing it")

// TestReference compares docs/cli/README.md with the commands; make generate writes it.
func TestReference(t *testing.T) {
	const path = "../../docs/cli/README.md"
	want := reference(newTestRoot())
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/cli/README.md is outdated (%v): run make generate", err)
	}
}

// reference returns the command reference.
func reference(root *cobra.Command) []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	code := func(text string) {
		for l := range strings.Lines(text) {
			line("    %s", strings.TrimSpace(l))
		}
		line("")
	}
	escape := strings.NewReplacer("<", `\<`, "|", `\|`).Replace
	table := func(flags *pflag.FlagSet) {
		if !flags.HasFlags() {
			return
		}
		line("| flag | default | meaning |\n|---|---|---|")
		flags.VisitAll(func(f *pflag.Flag) {
			value, usage := pflag.UnquoteUsage(f)
			name, byDefault := strings.TrimSpace("--"+f.Name+" "+value), f.DefValue
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			if byDefault != "" && byDefault != "false" && byDefault != "[]" {
				byDefault = "`" + byDefault + "`"
			} else {
				byDefault = ""
			}
			line("| `%s` | %s | %s |", name, byDefault, escape(usage))
		})
		line("")
	}
	line("# Command reference\n\n<!-- Generated from cmd/kops-spot: run make generate -->\n")
	line("%s\n", escape(root.Long))
	line("| command | |\n|---|---|")
	for _, cmd := range commands(root) {
		path := cmd.CommandPath()
		line("| [`%s`](#%s) | %s |", path, strings.ReplaceAll(path, " ", "-"), cmd.Short)
	}
	common := pflag.NewFlagSet("", pflag.ContinueOnError)
	common.AddFlagSet(root.PersistentFlags())
	for _, cmd := range commands(root) {
		for _, name := range selecting {
			if f := cmd.Flags().Lookup(name); f != nil && common.Lookup(name) == nil {
				common.AddFlag(f)
			}
		}
	}
	line("\n## Common flags\n")
	table(common)
	for _, cmd := range commands(root) {
		line("## %s\n", cmd.CommandPath())
		line("%s\n", strings.TrimSpace(cmp.Or(escape(cmd.Long), cmd.Short+".")))
		usage := cmd.UseLine()
		for _, sub := range cmd.Commands() {
			usage += "\n" + sub.CommandPath()
		}
		code(usage)
		if cmd.Example != "" {
			line("Examples:\n")
			code(cmd.Example)
		}
		own := pflag.NewFlagSet("", pflag.ContinueOnError)
		var others []string
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if common.Lookup(f.Name) == nil {
				own.AddFlag(f)
			} else if slices.Contains(selecting, f.Name) {
				others = append(others, "`--"+f.Name+"`")
			}
		})
		table(own)
		if others != nil {
			line("Common flags: %s\n", strings.Join(others, ", "))
		}
	}
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n')
}
