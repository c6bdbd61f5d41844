using System.Text.RegularExpressions;
using NUnit.Framework;

namespace Ublkback.Tests;

/// <summary>Rules of the house that the compiler does not know.</summary>
public sealed partial class StyleTests
{
    // From the bottom to the top; a room may reference rooms before it only.
    private static readonly string[] Rooms =
    [
        "Ublkback.Block", "Ublkback.Hooks", "Ublkback.Plugins", "Ublkback.XenStore", "Ublkback.Blkif", "Ublkback.Linux", "Ublkback.Xen", "Ublkback.Images", "Ublkback.Nbd", "Ublkback.Rados", "Ublkback.Parallax",
        "Ublkback.Backend", "Ublkback.EmulatedHost", "Ublkback",
    ];

    private static readonly string[] UnsafeRooms = ["Ublkback.Linux", "Ublkback.Xen", "Ublkback.Blkif", "Ublkback.Rados", "Ublkback.EmulatedHost"];

    [Test]
    public void References_point_downwards()
    {
        foreach (string project in Repository.SourceFiles("*.csproj"))
        {
            int room = Array.IndexOf(Rooms, Path.GetFileNameWithoutExtension(project));
            Assert.That(room, Is.Not.Negative, $"{project} is a room that the house does not know");
            foreach (Match reference in Reference().Matches(File.ReadAllText(project)))
                Assert.That(Array.IndexOf(Rooms, reference.Groups[1].Value), Is.LessThan(room), $"{project} references {reference.Value}");
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
                Is.EqualTo(UnsafeRooms.Contains(room)), room);
        }
    }

    [Test]
    public void Files_stay_small()
    {
        const int MaxLines = 400;
        foreach (string file in Repository.SourceFiles("*.cs"))
            Assert.That(File.ReadAllLines(file), Has.Length.LessThanOrEqualTo(MaxLines), file);
    }

    // What would block a worker, or allocate for each request, has no place in the files that a request passes.
    [Test]
    public void The_data_path_neither_blocks_nor_allocates_by_name()
    {
        string[] path =
        [
            "Ublkback.Backend/RingServer.cs", "Ublkback.Backend/RingRequest.cs", "Ublkback.Backend/EventPort.cs",
            "Ublkback.Backend/RequestCheck.cs", "Ublkback.Blkif/BackRing.cs", "Ublkback.Linux/Worker.cs",
            "Ublkback.Linux/IoUring.cs", "Ublkback.Images/RawImage.cs", "Ublkback.Backend/GuestMemory.cs",
            "Ublkback.Backend/GrantCopyBatch.cs", "Ublkback.Backend/PersistentGrants.cs", "Ublkback.Backend/RequestOrder.cs",
            "Ublkback.Backend/PollWindow.cs", "Ublkback.Backend/RingIdle.cs", "Ublkback.Backend/EventThrottle.cs", "Ublkback.Backend/WaitingRequests.cs", "Ublkback.Blkif/RingJournal.cs",
            "Ublkback.Linux/WorkerBuffers.cs", "Ublkback.Linux/MemoryFileIo.cs",
            "Ublkback.Linux/PuntedFileIo.cs", "Ublkback.Linux/RingBufferQuota.cs", "Ublkback.Linux/DomainBufferQuota.cs",
            "Ublkback.Images/Qcow2/ClusterReader.cs", "Ublkback.Images/Qcow2/ClusterWriter.cs", "Ublkback.Images/Qcow2/ClusterMap.cs",
            "Ublkback.Images/Qcow2/Extent.cs", "Ublkback.Images/Qcow2/MetadataCache.cs", "Ublkback.Images/Qcow2/ContainerFile.cs",
            "Ublkback.Block/ImageAccess.cs", "Ublkback.Block/LoopCondition.cs", "Ublkback.Parallax/BlockReader.cs", "Ublkback.Parallax/BlockWriter.cs", "Ublkback.Parallax/BlockMap.cs",
            "Ublkback.Parallax/VdiLog.cs", "Ublkback.Parallax/LogBatch.cs", "Ublkback.Parallax/BlockClaims.cs", "Ublkback.Parallax/SourceContainers.cs", "Ublkback.Block/RequestQuiescence.cs",
        ];
        string[] banned = ["Thread.Sleep", ".Result", ".Wait(", " lock (", "Task.Delay", ".Select(", ".Where(", ".ToList(", ".ToArray("];
        foreach (string file in path)
        {
            string text = File.ReadAllText(Path.Combine(Repository.Root, "src", file));
            foreach (string word in banned)
                Assert.That(text.Replace("completion.Result", "", StringComparison.Ordinal), Does.Not.Contain(word), file);
        }
    }

    [Test]
    public void Nothing_depends_on_where_it_was_built()
    {
        foreach (string file in Repository.SourceFiles("*.cs").Concat(Directory.EnumerateFiles(Path.Combine(Repository.Root, "scripts"))))
            Assert.That(File.ReadAllText(file), Does.Not.Contain("/work/").And.Not.Contain("../shared"), file);
    }

    [GeneratedRegex("ProjectReference Include=\"\\.\\./([^/]+)/")]
    private static partial Regex Reference();
}
