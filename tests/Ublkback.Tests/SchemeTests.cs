using System.Text.RegularExpressions;
using NUnit.Framework;
using Ublkback.Hosting;
using Ublkback.Tests.House;

namespace Ublkback.Tests;

/// <summary>A scheme of images is one folder and one registration.</summary>
public sealed partial class SchemeTests
{
    // Where a scheme may be named: its own folder.
    private static readonly Dictionary<string, string> Folders = new()
    {
        ["qcow2"] = "Ublkback.Images/Qcow2/",
        ["raw"] = "Ublkback.Images/Raw/",
        ["memory"] = "Ublkback.Images/Raw/",
        ["null"] = "Ublkback.Images/Raw/",
        ["nbd"] = "Ublkback.Nbd/",
        ["nbds"] = "Ublkback.Nbd/",
        ["rbd"] = "Ublkback.Rados/Rbd/",
        ["vdi"] = "Ublkback.Parallax/",
    };

    private static readonly Dictionary<string, string> Owners = new()
    {
        ["BlockTarget"] = "raw",
        ["Qcow2Opener"] = "qcow2",
        ["NbdAddress"] = "nbd",
        ["RbdOpener"] = "rbd",
        ["VdiOpener"] = "vdi",
    };

    // Each exception has its reason.
    private static readonly Dictionary<string, string> Exceptions = new()
    {
        ["Ublkback/Hosting/CatalogMaker.cs"] = "the registrations",
        ["Ublkback.Block/Targets/TargetReader.cs"] = "the grammar of targets: a path alone means raw",
        ["Ublkback.Images/Qcow2/BackingFiles.cs"] = "a qcow2 header names the format of its backing file",
        ["Ublkback.Images/Qcow2/Qcow2Scheme.cs"] = "the same",
        ["Ublkback/Commands/Vdis/VdiSession.cs"] = "commands of VDIs, which take the name of a VDI for a target",
        ["Ublkback/Commands/Vdis/VdiCommand.cs"] = "help",
        ["Ublkback/Commands/Vdis/VdiExportCommand.cs"] = "help",
        ["Ublkback/Commands/Images/ImageCommand.cs"] = "help",
        ["Ublkback/Commands/Images/ImageCreateCommand.cs"] = "help",
        ["Ublkback/Commands/Images/ImageInfoCommand.cs"] = "help",
        ["Ublkback/Commands/Images/ImageCheckCommand.cs"] = "help",
        ["Ublkback/Commands/Images/ImageCommitCommand.cs"] = "help",
        ["Ublkback/Commands/Images/ImageMapCommand.cs"] = "help",
        ["Ublkback/Commands/ExportCommand.cs"] = "help",
    };

    [Test]
    public void No_scheme_is_named_outside_its_folder()
    {
        foreach ((string path, string scheme) in FindNames())
            Assert.That(
                Exceptions.ContainsKey(path), Is.True,
                $"{path} names the scheme {scheme}: ask the catalog what the scheme can do");
    }

    [Test]
    public void Each_scheme_of_the_catalog_has_its_folder_here() => Assert.That(
        Folders.Keys,
        Is.EquivalentTo(new CatalogMaker(null).MakeForTools().Images.Keys.Select(key => key.Split('+')[0]).Distinct()),
        "a transport follows a +");

    [Test]
    public void Each_exception_is_still_needed() => Assert.That(
        Exceptions.Keys, Is.SubsetOf(FindNames().Select(found => found.Path)));

    private static IEnumerable<(string Path, string Scheme)> FindNames()
    {
        foreach (string file in Repository.SourceFiles("*.cs"))
        {
            string path = Path.GetRelativePath(Path.Combine(Repository.Root, "src"), file);
            string code = Comment().Replace(File.ReadAllText(file), "");
            foreach (string scheme in Literal().Matches(code).Select(match => match.Value)
                .Concat(Constant().Matches(code).Select(match => Owners[match.Groups[1].Value])))
            {
                if (!path.StartsWith(Folders[scheme], StringComparison.Ordinal)) yield return (path, scheme);
            }
        }
    }

    [GeneratedRegex("^\\s*//.*$", RegexOptions.Multiline)]
    private static partial Regex Comment();

    [GeneratedRegex("\\b(BlockTarget|Qcow2Opener|NbdAddress|RbdOpener|VdiOpener)\\.(RawScheme|SecretScheme|Scheme)\\b")]
    private static partial Regex Constant();

    // A scheme and a colon before a location, or a string that is compared with a scheme.
    [GeneratedRegex(
        "(?<![\\w.-])(qcow2|raw|memory|null|nbds?|rbd|vdi)(?=:[\\w/{\"])|(?<=([=!]=|is) \")(qcow2|raw|rbd|vdi)(?=\")")]
    private static partial Regex Literal();
}
