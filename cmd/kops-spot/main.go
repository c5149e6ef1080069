// Command kops-spot installs and operates the function. The function does not need it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/internal/term"
)

// version is set by make. Otherwise, it is the module's, which go install sets.
var version string

func init() {
	if version == "" {
		info, _ := debug.ReadBuildInfo()
		version = moduleVersion(info)
	}
}

// moduleVersion returns the version of the main module, without its v, as in VERSION.
func moduleVersion(info *debug.BuildInfo) string {
	if info == nil || !strings.HasPrefix(info.Main.Version, "v") { // of a test: empty or (devel)
		return "dev"
	}
	return info.Main.Version[1:]
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Environ(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		(&console{environ: os.Environ(), stderr: os.Stderr}).say(term.Bad, "%v", err)
		os.Exit(1)
	}
}

// run runs a command. environ has the form of os.Environ. Results go to stdout, messages to stderr. The caller prints
// the error.
func run(ctx context.Context, environ, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	root := newRoot(&console{environ: environ, stdin: stdin, stdout: stdout, stderr: stderr})
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// newRoot returns the tree of commands.
func newRoot(c *console) *cobra.Command {
	// No custom templates: with them, the linker keeps every method of every client, and the binary triples.
	root := &cobra.Command{
		Use:   "kops-spot",
		Short: "Drain the nodes of kOps clusters when EC2 reclaims Spot instances",
		Long: `kops-spot installs and operates the AWS Lambda function that drains a node of a kOps cluster when EC2
reclaims its Spot instance.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if c.output != asText && c.output != asJSON && !(c.output == asSAM && cmd.Name() == "grant") {
				return fmt.Errorf("invalid --output %q: use %s or %s", c.output, asText, asJSON)
			}
			return nil
		},
		Run: func(cmd *cobra.Command, args []string) { _ = cmd.Help() },
	}
	root.PersistentFlags().StringVarP(&c.output, "output", "o", asText, "Output `format`: "+asText+" or "+asJSON)
	root.SetFlagErrorFunc(seeHelp)
	root.SetIn(c.stdin)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	root.AddCommand(
		checkCommand(c),
		connectCommand(c),
		disconnectCommand(c),
		explainCommand(c),
		fixCommand(c),
		grantCommand(c),
		installCommand(c),
		invokeCommand(c),
		offboardCommand(c),
		onboardCommand(c),
		rehearseCommand(c),
		reportCommand(c),
		restoreCommand(c),
		savingsCommand(c),
		statusCommand(c),
		uninstallCommand(c),
		&cobra.Command{
			Use:   "version",
			Short: "Print the version",
			Args:  noArgs,
			RunE: func(*cobra.Command, []string) error {
				return c.printResult(map[string]string{"version": version}, func(w io.Writer, _ term.Options) error {
					_, err := fmt.Fprintln(w, version)
					return err
				})
			},
		},
	)
	root.SetHelpCommand(&cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show the help of a command",
		RunE: func(_ *cobra.Command, args []string) error { // cobra's own accepts unknown commands
			cmd, _, err := root.Find(args)
			if err != nil {
				return err
			}
			cmd.InitDefaultHelpFlag()
			cmd.InitDefaultVersionFlag()
			return cmd.Help()
		},
	})
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	c.addCompletions(root)
	return root
}
