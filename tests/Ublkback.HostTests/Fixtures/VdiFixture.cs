using System.Text.RegularExpressions;
using NUnit.Framework;

namespace Ublkback.HostTests.Fixtures;

/// <summary>A host with a store of VDIs.</summary>
public abstract partial class VdiFixture : HostFixture
{
    /// <summary>The store, as commands are told.</summary>
    protected string StoreOption { get; set; } = "";

    /// <summary>A VDI of the store as a target.</summary>
    protected string TargetOf(string name) => $"vdi:{name}?store={StoreOption.Replace('?', '&')}";

    /// <summary>Runs a command for VDIs, which must not fail; gives what it says.</summary>
    protected async Task<string> VdiAsync(params string[] arguments)
    {
        (int status, string output, string errors) = await RunVdiAsync(arguments);
        Assert.That((status, errors), Is.EqualTo((0, "")), string.Join(' ', arguments));
        return output;
    }

    /// <summary>Runs a command for VDIs, which must refuse in one line; gives that.</summary>
    protected async Task<string> RefusedAsync(params string[] arguments)
    {
        (int status, string output, string errors) = await RunVdiAsync(arguments);
        Assert.That((status, output, errors.Count(letter => letter == '\n')), Is.EqualTo((1, "", 1)), errors);
        return errors;
    }

    // What is waited for depends on how fast the machine is.
    private async Task<(int Status, string Output, string Errors)> RunVdiAsync(string[] arguments)
    {
        (int status, string output, string errors) = await RunAsync(
            ["vdi", .. arguments, .. arguments.Contains("--store") ? Array.Empty<string>() : ["--store", StoreOption]]);
        return (status, output, WaitNotice().Replace(errors, ""));
    }

    [GeneratedRegex("^ublkback: waiting for .*\n", RegexOptions.Multiline)]
    private static partial Regex WaitNotice();
}
