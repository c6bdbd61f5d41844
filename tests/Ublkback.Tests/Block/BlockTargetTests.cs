using NUnit.Framework;
using Ublkback.Block;

namespace Ublkback.Tests.Block;

public sealed class BlockTargetTests
{
    [TestCase("/images/a.img", "raw", "/images/a.img")]
    [TestCase("raw:/images/a.img", "raw", "/images/a.img")]
    [TestCase("aio:/images/a.img", "raw", "/images/a.img")]
    [TestCase("file:/images/a.img", "raw", "/images/a.img")]
    [TestCase("phy:/dev/vg/lv", "raw", "/dev/vg/lv")]
    [TestCase("tap:aio:/images/a.img", "raw", "/images/a.img")]
    [TestCase("aio:qcow2:/x", "qcow2", "/x")]
    [TestCase("nbd:unix:/run/nbd.sock", "nbd", "unix:/run/nbd.sock")]
    [TestCase("/with space/and:colon,comma.img", "raw", "/with space/and:colon,comma.img")]
    public void Names_the_image(string text, string scheme, string location)
    {
        BlockTarget target = BlockTarget.Parse(text);

        Assert.That((target.Scheme, target.Location, target.Hooks.Count), Is.EqualTo((scheme, location, 0)));
    }

    [Test]
    public void Reads_options()
    {
        BlockTarget target = BlockTarget.Parse("raw:/a.img?cache=writeback&share=unsafe");

        Assert.That(target.Location, Is.EqualTo("/a.img"));
        Assert.That(target.Options, Is.EquivalentTo(
            new Dictionary<string, string> { ["cache"] = "writeback", ["share"] = "unsafe" }));
    }

    [Test]
    public void Reads_hooks_in_their_order()
    {
        BlockTarget target = BlockTarget.Parse("aio:trace+throttle(iops=500,burst=9)+file:/images/a+b.img");

        Assert.That(target.Hooks.Select(hook => hook.Name), Is.EqualTo(new[] { "trace", "throttle" }));
        Assert.That(target.Hooks[1].Arguments, Is.EquivalentTo(
            new Dictionary<string, string> { ["iops"] = "500", ["burst"] = "9" }));
        Assert.That(target.Location, Is.EqualTo("/images/a+b.img"));
    }

    [TestCase("", "no target given")]
    [TestCase("images/a.img", "not an absolute path")]
    [TestCase("aio:", "names no file")]
    [TestCase("raw:", "names no file")]
    [TestCase("trace(", "closing parenthesis")]
    [TestCase("trace+", "names no file")]
    [TestCase("throttle(iops)+/a", "key=value")]
    [TestCase("/a?cache", "key=value")]
    [TestCase("/a?cache=none&cache=none", "given twice")]
    [TestCase("/a\n", "control character")]
    public void Says_what_is_wrong(string text, string part) =>
        Assert.That(() => BlockTarget.Parse(text), Throws.TypeOf<TargetException>().With.Message.Contains(part));

    [TestCase("qcow9:/a", "unknown scheme qcow9")]
    [TestCase("trace+/a", "unknown hook trace")]
    public void Refuses_what_it_does_not_know(string text, string part)
    {
        BlockCatalog catalog = new BlockCatalog().AddImage("raw", (_, _) => throw new InvalidOperationException());

        Assert.That(
            () => catalog.Open(BlockTarget.Parse(text), new ImageOpening("nobody", 0, true, true, null, _ => { })),
            Throws.TypeOf<TargetException>().With.Message.Contains(part));
    }
}
