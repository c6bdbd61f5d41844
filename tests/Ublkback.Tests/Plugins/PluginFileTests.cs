using NUnit.Framework;
using Ublkback.Plugins;

namespace Ublkback.Tests.Plugins;

public sealed class PluginFileTests
{
    [TestCase("0.1.0", "0.1.0", true)]
    [TestCase("0.1.0", "0.1.9", true)]
    [TestCase("0.1.0", "0.2.0", false)]
    [TestCase("0.2.0", "0.1.0", false)]
    [TestCase("1.2.0", "1.3.0", true)]
    [TestCase("1.3.0", "1.2.9", false)]
    [TestCase("1.0.0", "2.0.0", false)]
    public void A_plugin_runs_with_what_it_was_built_for(string built, string ours, bool isCompatible) =>
        Assert.That(PluginFile.IsCompatible(Version.Parse(built), Version.Parse(ours)), Is.EqualTo(isCompatible));
}
