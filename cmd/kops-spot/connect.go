package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	tty "golang.org/x/term"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/agent"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/identitymap"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/term"
)

type connectOptions struct {
	awsFlags
	api, tokenFile, export string
}

func connectCommand(c *console) *cobra.Command {
	var o connectOptions
	cmd := &cobra.Command{
		Use:   "connect",
		Short: "Install CAST AI's agent, which reads the cluster",
		Long: `Install CAST AI's agent. It reads the cluster, without Secrets, and reports to CAST AI; it writes only in its
own namespace. The plan is shown before you confirm it. Then wait until the agent is ready, or say why it is not.

The API token is read from CASTAI_API_TOKEN, from --token-file, or from a prompt. It is stored in the cluster, in a
Secret in the agent's namespace. Later runs keep it. No AWS credentials are needed.`,
		Example: "  kops-spot connect\n" +
			"  kops-spot connect --token-file token --yes\n" +
			"  kops-spot connect --export agent/",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.connectAgent(cmd.Context(), o) },
	}
	f := cmd.Flags()
	o.register(f)
	o.registerState(f)
	f.StringVar(&o.api, "api-url", agent.DefaultAPI, "The `URL` of CAST AI's API")
	f.StringVar(&o.tokenFile, "token-file", "", "Read the API token from this `file`")
	c.applyFlags(f)
	exportFlag(f, &o.export)
	return cmd
}

func disconnectCommand(c *console) *cobra.Command {
	var o kubeFlags
	cmd := &cobra.Command{
		Use:   "disconnect",
		Short: "Remove CAST AI's agent",
		Long: `Remove what connect has created, and nothing else. The namespace stays if others have put objects into it.
The plan is shown before you confirm it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.disconnectAgent(cmd.Context(), o) },
	}
	o.register(cmd.Flags())
	c.applyFlags(cmd.Flags())
	return cmd
}

func (c *console) connectAgent(ctx context.Context, o connectOptions) error {
	k, err := c.connect(ctx, o.kubeFlags)
	if err != nil {
		return err
	}
	client := k.objects
	a := agent.Agent{Cluster: k.ref.Cluster, Store: k.store, API: strings.TrimRight(o.api, "/")}
	if _, a.Region, err = k.instances(ctx, o.region); err != nil {
		return err
	}
	if a.Store == "" {
		return errors.New("the kOps state store is unknown: the cluster does not name it: set --state")
	}
	if o.export != "" {
		text, err := a.Export()
		if err != nil {
			return err
		}
		return c.export(o.export, map[string][]byte{"agent.yaml": text}, false, a.Cluster)
	}
	if a.Token, err = c.agentToken(ctx, client, o.tokenFile); err != nil {
		return err
	}
	p, err := a.Plan(ctx, client)
	if err != nil {
		return err
	}
	c.say(term.Mind, "cluster %s, region %s, state store %s, kubeconfig context %s", a.Cluster, a.Region, a.Store,
		k.ref.Context)
	return c.applyAgent(ctx, client, a, p, "Install the agent?", "the agent is ready",
		func(ctx context.Context) (change.Findings, error) { return agent.Wait(ctx, client) })
}

// agentToken returns the API token; empty if the cluster has it.
func (c *console) agentToken(ctx context.Context, client dynamic.Interface, file string) (string, error) {
	text := strings.TrimSpace(c.getenv("CASTAI_API_TOKEN"))
	if file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("reading the API token: %w: choose another --token-file", err)
		}
		if text = strings.TrimSpace(string(content)); text == "" {
			return "", fmt.Errorf("reading the API token: %s is empty: choose another --token-file", file)
		}
	}
	if text != "" {
		return text, nil
	}
	needed, err := agent.NeedsToken(ctx, client)
	if err != nil || !needed {
		return "", err
	}
	if !isTerminal(c.stdin) {
		return "", errors.New("no API token: create one in the CAST AI console, and set CASTAI_API_TOKEN or --token-file")
	}
	return c.promptToken(ctx, int(c.stdin.(*os.File).Fd()))
}

// promptToken reads the API token at a terminal, without echo.
func (c *console) promptToken(ctx context.Context, terminal int) (string, error) {
	echo, err := tty.GetState(terminal)
	if err != nil {
		return "", err
	}
	fmt.Fprint(c.stderr, "CAST AI API token: ")
	defer fmt.Fprintln(c.stderr)
	type result struct {
		typed []byte
		err   error
	}
	read, err := interruptible(ctx, func() result {
		typed, err := tty.ReadPassword(terminal)
		return result{typed, err}
	})
	if err != nil {
		return "", errors.Join(fmt.Errorf("nothing was changed: %w", err), tty.Restore(terminal, echo))
	}
	token := strings.TrimSpace(string(read.typed))
	if read.err == nil && token == "" {
		return "", errors.New("no API token: nothing was changed")
	}
	return token, read.err
}

func (c *console) disconnectAgent(ctx context.Context, o kubeFlags) error {
	k, err := c.connect(ctx, o)
	if err != nil {
		return err
	}
	client := k.objects
	p, err := agent.PlanRemoval(ctx, client, k.config)
	if err != nil {
		return err
	}
	c.say(term.Mind, "cluster %s, kubeconfig context %s", k.ref.Cluster, k.ref.Context)
	return c.applyAgent(ctx, client, agent.Agent{Cluster: k.ref.Cluster}, p, "Remove the agent?", "the agent is removed",
		func(ctx context.Context) (change.Findings, error) { return agent.WaitRemoved(ctx, client, k.config) })
}

func (c *console) applyAgent(ctx context.Context, client dynamic.Interface, a agent.Agent, p identitymap.Plan,
	question, good string, check func(context.Context) (change.Findings, error)) error {
	steps := identitymap.Steps(p, func(c dynamic.Interface) dynamic.Interface { return c })
	env := onboard.Environment{Values: iam.Values{Cluster: a.Cluster, Region: a.Region}}
	result, err := c.planAndApply(ctx, env, proposal{question: question, plan: p.Changes, always: true, check: check,
		apply: func(ctx context.Context) error { return change.Apply(ctx, client, steps) }})
	if err != nil {
		return err
	}
	return c.conclude(result, result.Findings, good, errUnfinished)
}

// agentWarning returns a warning if CAST AI's agent, which the guide requires, is not running.
func agentWarning(ctx context.Context, client dynamic.Interface) change.Findings {
	return finding(ctx, client, agent.Warning, "agent", "whether CAST AI's agent is running")
}

// finding returns the finding of a check that is not required to succeed, if it has any.
func finding(ctx context.Context, client dynamic.Interface,
	check func(context.Context, dynamic.Interface) (change.Finding, error), name, what string) change.Findings {
	f, err := check(ctx, client)
	switch {
	case err != nil:
		return change.Findings{{Level: change.Warn, Name: name, Detail: what + " is unknown: " + err.Error()}}
	case f.Name == "":
		return nil
	}
	return change.Findings{f}
}
