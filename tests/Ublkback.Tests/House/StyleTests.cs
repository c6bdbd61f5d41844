using System.Text.RegularExpressions;
using NUnit.Framework;

namespace Ublkback.Tests.House;

/// <summary>Rules of the house that the compiler does not know.</summary>
public sealed partial class StyleTests
{
    private const int MaxFilesOfPath = 12;

    [Test]
    public void References_point_downwards()
    {
        foreach (string project in Repository.SourceFiles("*.csproj"))
        {
            int room = Array.IndexOf(HousePlan.Rooms, Path.GetFileNameWithoutExtension(project));
            Assert.That(room, Is.Not.Negative, $"{project} is a room that the house does not know");
            foreach (Match reference in Reference().Matches(File.ReadAllText(project)))
                Assert.That(
                    Array.IndexOf(HousePlan.Rooms, reference.Groups[1].Value), Is.LessThan(room),
                    $"{project} references {reference.Value}");
        }
    }

    [Test]
    public void Unsafe_code_stays_in_its_rooms()
    {
        foreach (string project in Repository.SourceFiles("*.csproj"))
        {
            string room = Path.GetFileNameWithoutExtension(project);
            Assert.That(
                File.ReadAllText(project).Contains("AllowUnsafeBlocks", StringComparison.Ordinal),
                Is.EqualTo(HousePlan.UnsafeRooms.Contains(room)), room);
        }
    }

    [Test]
    public void Files_stay_small()
    {
        const int MaxLines = 300;
        foreach (string file in Repository.SourceFiles("*.cs"))
            Assert.That(File.ReadAllLines(file), Has.Length.LessThanOrEqualTo(MaxLines), file);
    }

    [Test]
    public void Lines_are_at_most_120_columns_wide()
    {
        const int MaxColumns = 120;
        foreach (string folder in (string[])["src", "tests", "samples"])
            foreach (string file in Repository.Below(Path.Combine(Repository.Root, folder), "*.cs"))
                Assert.That(File.ReadLines(file).Where(line => line.Length > MaxColumns), Is.Empty, file);
    }

    [Test]
    public void Every_file_on_the_path_of_a_READ_is_marked()
    {
        string[] path = PathOf("## One READ, door to door");
        Assert.That(path, Has.Length.EqualTo(MaxFilesOfPath).And.Contain("RawImage"));
        Assert.That(DataPathSearch.FilesOfTree().Select(Path.GetFileNameWithoutExtension), Is.SupersetOf(path));
    }

    [Test]
    public void Every_file_on_the_path_of_a_connect_exists()
    {
        string[] path = PathOf("## One connect, door to door");
        Assert.That(path, Has.Length.EqualTo(MaxFilesOfPath).And.Contain("VbdSteps"));
        Assert.That(Repository.SourceFiles("*.cs").Select(Path.GetFileNameWithoutExtension), Is.SupersetOf(path));
    }

    // The files that a section of ARCHITECTURE.md lists in its table, one in each row.
    private static string[] PathOf(string heading) =>
    [
        .. File.ReadLines(Path.Combine(Repository.Root, "docs/ARCHITECTURE.md"))
            .SkipWhile(line => line != heading).Skip(1)
            .TakeWhile(line => !line.StartsWith("## ", StringComparison.Ordinal))
            .Select(line => PathRow().Match(line)).Where(row => row.Success).Select(row => row.Groups[1].Value),
    ];

    [Test]
    public void Nothing_depends_on_where_it_was_built()
    {
        foreach (string file in Repository.SourceFiles("*.cs")
            .Concat(Directory.EnumerateFiles(Path.Combine(Repository.Root, "scripts"))))
            Assert.That(File.ReadAllText(file), Does.Not.Contain("/work/").And.Not.Contain("../shared"), file);
    }

    [GeneratedRegex("ProjectReference Include=\"\\.\\./([^/]+)/")]
    private static partial Regex Reference();

    [GeneratedRegex(@"^\| \d+ \| `(\w+)` \|")]
    private static partial Regex PathRow();
}
