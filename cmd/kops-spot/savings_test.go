package main

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/castai/kops-spot/internal/inventory"
)

// TestPriceSource: prices that are not AWS's are marked.
func TestPriceSource(t *testing.T) {
	const ours, vpce = "http://127.0.0.1:5000", "https://vpce-1-x.ec2.eu-west-1.vpce.amazonaws.com"
	for name, c := range map[string]struct {
		environ      []string
		base, source string
		prices       *inventory.Prices
		sample       bool
	}{
		"AWS":                         {source: "EC2 and the Price List API"},
		"an endpoint of AWS":          {environ: []string{"AWS_ENDPOINT_URL_EC2=" + vpce}, source: "EC2 and the Price List API"},
		"another endpoint":            {base: ours, source: ours, sample: true},
		"another endpoint for EC2":    {environ: []string{"AWS_ENDPOINT_URL_EC2=" + ours}, source: ours, sample: true},
		"another endpoint for prices": {environ: []string{"AWS_ENDPOINT_URL_PRICING=" + ours}, source: ours, sample: true},
		"a similar endpoint":          {base: "https://amazonaws.com.example", source: "https://amazonaws.com.example", sample: true},
		"a file":                      {prices: &inventory.Prices{}, base: ours, source: "prices.yaml"},
		"a file with samples":         {prices: &inventory.Prices{Sample: true}, source: "prices.yaml", sample: true},
	} {
		at := session{aws: aws.Config{}}
		if c.base != "" {
			at.aws.BaseEndpoint = &c.base
		}
		if got := (&console{environ: c.environ}).priceSource("prices.yaml", c.prices, at); got.Source != c.source || got.Sample != c.sample {
			t.Errorf("%s: got %+v, want %s, %t", name, got, c.source, c.sample)
		}
	}
}
