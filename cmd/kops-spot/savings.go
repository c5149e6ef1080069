package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/inventory"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/savings"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/term"
)

type savingsOptions struct {
	awsFlags
	prices string
	html   htmlFile
}

func savingsCommand(c *console) *cobra.Command {
	var o savingsOptions
	cmd := &cobra.Command{
		Use:   "savings",
		Short: "Estimate what the cluster could save with Spot, fewer machines and other sizes",
		Long: `Estimate what the cluster would cost per month with Spot Instances where its pods may run on them, with these
packed on fewer machines, and with machines of another size. Each estimate says what keeps it from being
lower. Only get and list requests are sent, and nothing is sent anywhere else. The permissions are shown and
checked first.

The prices are AWS's present ones, or those of a file.`,
		Example: "  kops-spot savings\n  kops-spot savings --html savings.html\n  kops-spot savings --prices prices.yaml --output json",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.savings(cmd.Context(), o) },
	}
	f := cmd.Flags()
	o.register(f)
	f.StringVar(&o.prices, "prices", "", "Take all prices from this `file` in YAML or JSON, not from AWS")
	o.html.register(f)
	return cmd
}

func (c *console) savings(ctx context.Context, o savingsOptions) error {
	var from inventory.Source
	var err error
	if o.prices != "" {
		if from.Prices, err = inventory.ReadPrices(o.prices); err != nil {
			return err
		}
	}
	if err := o.html.prepare(); err != nil {
		return err
	}
	defer o.html.discard()
	c.say(term.Mind, "these permissions are needed, and all of them only read:\n%s", strings.Join(from.Permissions(), "\n"))
	at, err := c.openUnverified(ctx, o.awsFlags)
	if err != nil {
		return err
	}
	if at.env, at.tagged, err = onboard.VerifyCluster(ctx, at.account, at.nodes, at.ref); err != nil {
		return err
	}
	from.Cluster, from.AWS, from.Name = at.objects, at.account, at.env.Cluster
	if from.Nodes, err = at.nodeFacts(ctx); err != nil {
		return err
	}
	all, found, err := from.Read(ctx)
	if err := errors.Join(term.Findings(c.stderr, found, c.options(c.stderr)), err); err != nil {
		return err
	}
	result := savings.Output{Cluster: at.env.Cluster, Region: at.env.Region, Time: time.Now().UTC().Truncate(time.Second),
		Prices: c.priceSource(o.prices, from.Prices, at), Risks: all.Risks}
	if result.Report, err = savings.Compute(all.Cluster, all.Catalog); err != nil {
		return err
	}
	writing := o.html.write(result.HTML)
	return errors.Join(c.printResult(result, func(w io.Writer, o term.Options) error {
		const subjects = 3 // of a reason; JSON has all
		rows := [][]string{savings.Columns}
		for _, s := range result.Sections() {
			if s.Heading != "" {
				rows = append(rows, []string{s.Heading})
			}
			rows = append(rows, s.Rows...)
		}
		return term.Report(w, result.Title(), rows, result.Footnotes(subjects), result.Notices(), o)
	}), writing)
}

// nodeFacts returns what EC2 knows about the nodes, by their names. An instance without the cluster's tag is in no
// instance group.
func (at session) nodeFacts(ctx context.Context) (map[string]inventory.NodeFacts, error) {
	instances := map[string]awsadmin.Instance{}
	for _, i := range at.tagged {
		instances[i.ID] = i
	}
	var untagged []string
	for _, n := range at.nodes {
		if _, tagged := instances[n.ID]; !tagged {
			untagged = append(untagged, n.ID)
		}
	}
	others, err := at.account.Instances(ctx, untagged)
	for _, i := range others {
		instances[i.ID] = i
	}
	facts := map[string]inventory.NodeFacts{}
	for _, n := range at.nodes {
		i := instances[n.ID]
		one := inventory.NodeFacts{Spot: i.Spot, ControlPlane: n.ControlPlane}
		if i.Tags[spot.TagCluster] == at.env.Cluster {
			one.Group = cmp.Or(i.Tags[spot.TagInstanceGroup], n.Group)
		}
		facts[n.Node] = one
	}
	return facts, err
}

// priceSource says where the prices come from. Those of another endpoint than AWS's, as in a test, are samples.
func (c *console) priceSource(file string, prices *inventory.Prices, at session) savings.Prices {
	if prices != nil {
		return savings.Prices{Source: file, Sample: prices.Sample}
	}
	endpoints := []string{c.getenv("AWS_ENDPOINT_URL_EC2"), c.getenv("AWS_ENDPOINT_URL_PRICING")}
	if at.aws.BaseEndpoint != nil {
		endpoints = append(endpoints, *at.aws.BaseEndpoint)
	}
	for _, e := range endpoints {
		if e != "" && !isAWS(e) {
			return savings.Prices{Source: e, Sample: true}
		}
	}
	return savings.Prices{Source: "EC2 and the Price List API"}
}

// isAWS reports whether an endpoint is one of AWS's.
func isAWS(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && slices.ContainsFunc([]string{".amazonaws.com", ".amazonaws.com.cn", ".api.aws"}, func(domain string) bool {
		return strings.HasSuffix(u.Hostname(), domain)
	})
}
