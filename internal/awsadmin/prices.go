package awsadmin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/pricing"
	pricingtypes "github.com/aws/aws-sdk-go-v2/service/pricing/types"
)

// InstanceType is a type of EC2 instances.
type InstanceType struct {
	Name         string
	CPUs         int
	MemoryMiB    int64
	Architecture string // amd64 or arm64, as in Kubernetes; empty for others
	GPUs         int
	Pods         int  // that the AWS VPC CNI has addresses for, without prefix delegation
	Spot         bool // available as a Spot Instance
}

// architectures are Kubernetes' names of EC2's architectures.
var architectures = map[types.ArchitectureType]string{
	types.ArchitectureTypeX8664: "amd64", types.ArchitectureTypeArm64: "arm64"}

// InstanceTypes returns the types of the region that match one of the patterns, in which * stands for any text: m5.*
func (a *Account) InstanceTypes(ctx context.Context, patterns []string) (all []InstanceType, err error) {
	for some := range slices.Chunk(patterns, maxFilterValues) {
		found, err := every(ctx, "", ec2.NewDescribeInstanceTypesPaginator(a.ec2, &ec2.DescribeInstanceTypesInput{
			Filters: filters("instance-type", some...), MaxResults: aws.Int32(100)}),
			func(p *ec2.DescribeInstanceTypesOutput) []types.InstanceTypeInfo { return p.InstanceTypes },
			instanceType)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	slices.SortFunc(all, func(a, b InstanceType) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(all, func(a, b InstanceType) bool { return a.Name == b.Name }), nil
}

func instanceType(i types.InstanceTypeInfo) InstanceType {
	t := InstanceType{Name: string(i.InstanceType), Spot: slices.Contains(i.SupportedUsageClasses, types.UsageClassTypeSpot)}
	if i.VCpuInfo != nil {
		t.CPUs = int(aws.ToInt32(i.VCpuInfo.DefaultVCpus))
	}
	if i.MemoryInfo != nil {
		t.MemoryMiB = aws.ToInt64(i.MemoryInfo.SizeInMiB)
	}
	if n := i.NetworkInfo; n != nil { // each interface has its own address, and two pods have the host's
		t.Pods = int(aws.ToInt32(n.MaximumNetworkInterfaces)*(aws.ToInt32(n.Ipv4AddressesPerInterface)-1)) + 2
	}
	if i.ProcessorInfo != nil {
		for _, architecture := range i.ProcessorInfo.SupportedArchitectures {
			if name := architectures[architecture]; name != "" {
				t.Architecture = name
			}
		}
	}
	if i.GpuInfo != nil {
		for _, g := range i.GpuInfo.Gpus {
			t.GPUs += int(aws.ToInt32(g.Count))
		}
	}
	return t
}

// SpotPrice is the price of Spot Instances of a type in a zone, per hour.
type SpotPrice struct {
	Type, Zone string
	Price      float64
}

// linux is the product whose prices count: the node's image does not change them, unless it is sold by somebody.
const linux = "Linux/UNIX"

// SpotPrices returns the present price of each of the types in each zone that has it, in US dollars, ordered by type
// and zone.
func (a *Account) SpotPrices(ctx context.Context, names []string, zones []string) (all []SpotPrice, err error) {
	if len(names) == 0 || len(zones) == 0 {
		return nil, nil
	}
	var kinds []types.InstanceType
	for _, name := range names {
		kinds = append(kinds, types.InstanceType(name))
	}
	now := time.Now() // with the same beginning and end, EC2 returns the prices in effect at that time
	history, err := every(ctx, "", ec2.NewDescribeSpotPriceHistoryPaginator(a.ec2, &ec2.DescribeSpotPriceHistoryInput{
		InstanceTypes: kinds, ProductDescriptions: []string{linux}, StartTime: &now, EndTime: &now,
		Filters: filters("availability-zone", zones...), MaxResults: aws.Int32(1000)}),
		func(p *ec2.DescribeSpotPriceHistoryOutput) []types.SpotPrice { return p.SpotPriceHistory },
		itself)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(history, func(a, b types.SpotPrice) int { // the latest first
		return aws.ToTime(b.Timestamp).Compare(aws.ToTime(a.Timestamp))
	})
	for _, h := range history {
		one := SpotPrice{Type: string(h.InstanceType), Zone: aws.ToString(h.AvailabilityZone)}
		if one.Price, err = strconv.ParseFloat(aws.ToString(h.SpotPrice), 64); err != nil || one.Price <= 0 {
			return nil, fmt.Errorf("reading the Spot price of %s in %s: invalid price %q: use --prices", one.Type, one.Zone,
				aws.ToString(h.SpotPrice))
		}
		if !slices.ContainsFunc(all, func(p SpotPrice) bool { return p.Type == one.Type && p.Zone == one.Zone }) {
			all = append(all, one)
		}
	}
	slices.SortFunc(all, func(a, b SpotPrice) int {
		return strings.Compare(a.Type+" "+a.Zone, b.Type+" "+b.Zone)
	})
	return all, nil
}

// priceListRegion returns the region whose Price List API has a region's prices in US dollars; empty if none has. The
// API is available only in these regions (https://docs.aws.amazon.com/general/latest/gr/billing.html).
func priceListRegion(region string) string {
	for _, r := range []struct{ prefix, to string }{{"cn-", ""}, {"us-gov-", ""}, {"us-iso", ""}, {"eu-iso", ""}, {"eusc-", ""},
		{"eu-", "eu-central-1"}, {"ap-", "ap-south-1"}} {
		if strings.HasPrefix(region, r.prefix) {
			return r.to
		}
	}
	return "us-east-1"
}

// OnDemandPrices returns the on-demand price, in US dollars per hour, of those of the types that the region has, for
// Linux on shared hardware. One query for all types of the region takes fewer requests than one for each type. A type
// whose products look different than expected has no price. If no type has one, that is an error.
func (a *Account) OnDemandPrices(ctx context.Context, names []string) (map[string]float64, error) {
	region := a.Region()
	from := priceListRegion(region)
	if from == "" {
		return nil, fmt.Errorf("reading the on-demand prices: the Price List API is not available for region %s: use --prices",
			region)
	}
	client := pricing.NewFromConfig(a.cfg, func(o *pricing.Options) { o.Region = from })
	in := &pricing.GetProductsInput{ServiceCode: aws.String("AmazonEC2"), FormatVersion: aws.String("aws_v1"),
		MaxResults: aws.Int32(100)}
	for _, f := range [][2]string{{"regionCode", region}, {"productFamily", "Compute Instance"}, {"operatingSystem", "Linux"},
		{"preInstalledSw", "NA"}, {"tenancy", "Shared"}, {"capacitystatus", "Used"}, {"marketoption", "OnDemand"}} {
		in.Filters = append(in.Filters, pricingtypes.Filter{Type: pricingtypes.FilterTypeTermMatch, Field: &f[0], Value: &f[1]})
	}
	products, err := every(ctx, "", pricing.NewGetProductsPaginator(client, in),
		func(p *pricing.GetProductsOutput) []string { return p.PriceList }, itself)
	if err != nil {
		return nil, err
	}
	prices := map[string]float64{}
	var odd error
	var unclear []string
	for _, text := range products {
		var p product
		err := json.Unmarshal([]byte(text), &p)
		name, price := p.Product.Attributes.InstanceType, 0.0
		if err == nil && !slices.Contains(names, name) {
			continue
		}
		if err == nil {
			price, err = p.onDemand()
		}
		if other, found := prices[name]; err == nil && found && other != price {
			err = fmt.Errorf("two prices, %g and %g", other, price)
		}
		if err != nil {
			odd, unclear = cmp.Or(odd, fmt.Errorf("reading the on-demand price of %q in region %s: %w: use --prices", name, region, err)),
				append(unclear, name)
			continue
		}
		prices[name] = price
	}
	for _, name := range unclear {
		delete(prices, name)
	}
	if len(prices) == 0 {
		return nil, odd
	}
	return prices, nil
}

// product is the part of a product's document in the price list that has the price. AWS documents the format by
// examples only: "aws pricing get-products" in the AWS CLI Command Reference.
type product struct {
	Product struct {
		Attributes struct {
			InstanceType string `json:"instanceType"`
		} `json:"attributes"`
	} `json:"product"`
	Terms struct {
		OnDemand map[string]struct {
			PriceDimensions map[string]struct {
				Unit         string            `json:"unit"`
				PricePerUnit map[string]string `json:"pricePerUnit"` // by currency
			} `json:"priceDimensions"`
		} `json:"OnDemand"`
	} `json:"terms"`
}

// onDemand returns the price in US dollars per hour. There must be exactly one.
func (p product) onDemand() (float64, error) {
	var found []string
	for _, term := range p.Terms.OnDemand {
		for _, d := range term.PriceDimensions {
			if d.Unit == "Hrs" {
				found = append(found, d.PricePerUnit["USD"])
			}
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%d prices per hour", len(found))
	}
	price, err := strconv.ParseFloat(found[0], 64)
	if err != nil || price <= 0 {
		return 0, fmt.Errorf("invalid price %q in US dollars", found[0])
	}
	return price, nil
}
