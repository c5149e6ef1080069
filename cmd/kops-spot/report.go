package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/report"
	"github.com/castai/kops-spot/internal/term"
)

type reportOptions struct {
	awsFlags
	since lookback
	html  string
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
	f.StringVar(&o.html, "html", "", "Also write the report with charts to this `file`, as a page for a browser")
	return cmd
}

func (c *console) report(ctx context.Context, o reportOptions) error {
	since, err := o.since.start(time.Now())
	if err != nil {
		return err
	}
	if o.html != "" { // before the query, which AWS bills
		f, err := os.OpenFile(o.html, os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("opening the file for the report: %w", err)
		}
		f.Close()
	}
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
	var writing error
	if o.html != "" {
		var page bytes.Buffer
		if writing = r.HTML(&page); writing == nil {
			writing = os.WriteFile(o.html, page.Bytes(), 0o644)
		}
		if writing != nil {
			writing = fmt.Errorf("writing the report: %w", writing)
		}
	}
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
