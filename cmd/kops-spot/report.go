package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/report"
	"github.com/castai/kops-spot/internal/term"
)

type reportOptions struct {
	awsFlags
	since lookback
	html  htmlFile
}

func reportCommand(c *console) *cobra.Command {
	var o reportOptions
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Report on interruptions by group, type and zone",
		Long: `Count the interruptions in the function's log by Auto Scaling group, instance type and zone: results,
force-deleted pods, time until the node was empty, and failed replacements. CloudWatch Logs Insights reads
the log, which AWS bills by the amount of data.`,
		Example: "  kops-spot report --since 7d\n  kops-spot report --html report.html",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.report(cmd.Context(), o) },
	}
	f := cmd.Flags()
	o.register(f)
	o.since.register(f, 30*24*time.Hour)
	o.html.register(f)
	return cmd
}

func (c *console) report(ctx context.Context, o reportOptions) error {
	since, err := o.since.start(time.Now())
	if err != nil {
		return err
	}
	if err := o.html.prepare(); err != nil {
		return err
	}
	defer o.html.discard()
	at, err := c.openSession(ctx, o.awsFlags)
	if err != nil {
		return err
	}
	name := iam.LogGroup(at.env.Cluster)
	log, err := at.account.LogGroup(ctx, name)
	if err != nil {
		return err
	}
	if log == nil {
		return fmt.Errorf("log group %s does not exist in account %s, region %s: create the function with "+
			"kops-spot install", name, at.env.Account, at.env.Region)
	}
	r, err := report.New(ctx, at.aws, at.env.Cluster, *log, since)
	if err != nil {
		return err
	}
	writing := o.html.write(r.HTML)
	return errors.Join(c.printResult(r, func(w io.Writer, o term.Options) error {
		rows := [][]string{report.Columns}
		for _, s := range r.Sections() {
			if s.Heading != "" && len(s.Rows) > 0 {
				rows = append(rows, []string{s.Heading})
			}
			for _, row := range s.Rows {
				rows = append(rows, s.Cells(row))
			}
		}
		return term.Report(w, r.Title(), rows, r.Footnotes(), r.Notices, o)
	}), writing)
}
