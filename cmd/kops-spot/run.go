package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// run runs the command that the arguments name. environ has the form of os.Environ. Results go to stdout, and to stderr
// what is said on the way; the error is for the caller to tell.
func run(ctx context.Context, environ, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	c := &console{environ: environ, stdin: stdin, stdout: stdout, stderr: stderr}
	// No templates of our own: they would have the linker keep every method of every client, which makes three of the
	// binary's size.
	root := &cobra.Command{
		Use:   "kops-spot",
		Short: "drains the nodes of kOps clusters that EC2 takes back",
		Long: "kops-spot is the operator's side of the function that drains the nodes of a kOps cluster\n" +
			"that EC2 takes back: it deploys the function and checks it, explains what it would do, and\n" +
			"mends what it has left",
		Version:           version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("there is no command %s: kops-spot help lists those there are%s", args[0], meant(cmd, args[0]))
			}
			return nil
		},
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if c.output != asText && c.output != asJSON {
				return fmt.Errorf("--output %s: it is %s or %s", c.output, asText, asJSON)
			}
			return nil
		},
		Run: func(cmd *cobra.Command, args []string) { _ = cmd.Help() },
	}
	root.PersistentFlags().StringVarP(&c.output, "output", "o", asText, "the `form` of the result: "+asText+" or "+asJSON)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: %s --help lists the flags", err, cmd.CommandPath())
	})
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	// These are all there are: each has a file of its own, and a line here.
	root.AddCommand(
		checkCommand(c),
		explainCommand(c),
		installCommand(c),
		invokeCommand(c),
		offboardCommand(c),
		onboardCommand(c),
		rehearseCommand(c),
		restoreCommand(c),
		statusCommand(c),
		uninstallCommand(c),
		versionCommand(c),
	)
	root.InitDefaultHelpCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "help" {
			cmd.Short = "says what a command does"
		}
	}
	return root.ExecuteContext(ctx)
}

// ref are the commands that somebody may have ref.
func meant(root *cobra.Command, typed string) string {
	root.SuggestionsMinimumDistance = 2
	if names := root.SuggestionsFor(typed); len(names) > 0 {
		return "; did you mean " + strings.Join(names, " or ") + "?"
	}
	return ""
}

// one wants exactly one argument, and says which.
func one(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s: say %s, and nothing else: %s", cmd.CommandPath(), what, cmd.UseLine())
		}
		return nil
	}
}
